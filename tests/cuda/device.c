/* The driver's start, its words for errors, the devices, and contexts: primary ones only, each a file of the card while
 * it stands. */

#include "stand-in.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STACK = 16 };

struct primary {
  int count;
  int fd;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pid_t initialised_by;
static struct primary primaries[MAX_DEVICES];
static __thread struct primary *stack[STACK];
static __thread int depth;

static const struct {
  CUresult code;
  const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_STUB_LIBRARY, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM",
     "OS call failed or operation not supported on this OS"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "pointer does not correspond to a registered memory region"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

bool is_initialised(void) {
  return initialised_by == getpid();
}

const struct device *device_at(CUdevice ordinal) {
  const struct settings *settings = stand_in_settings();
  return ordinal >= 0 && ordinal < settings->devices ? &settings->device[ordinal] : NULL;
}

CUresult cuInit(unsigned int flags) {
  ENTER(NEEDS_NOTHING);
  if (flags != 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "%u", flags);
  /* A child of a process that has called it cannot start anew. */
  if (initialised_by != 0 && initialised_by != getpid()) LEAVE(CUDA_ERROR_NOT_INITIALIZED, "after fork");
  if (stand_in_settings()->devices == 0) LEAVE(CUDA_ERROR_NO_DEVICE, "0");
  initialised_by = getpid();
  LEAVE(CUDA_SUCCESS, "0");
}

CUresult cuDriverGetVersion(int *version) {
  ENTER(NEEDS_NOTHING);
  if (version == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  *version = stand_in_settings()->driver_version;
  LEAVE(CUDA_SUCCESS, "%d", *version);
}

CUresult cuGetErrorName(CUresult error, const char **text) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].code != error) continue;
    *text = errors[i].name;
    return CUDA_SUCCESS;
  }
  *text = NULL;
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].code != error) continue;
    *text = errors[i].text;
    return CUDA_SUCCESS;
  }
  *text = NULL;
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetCount(int *count) {
  ENTER(NEEDS_INIT);
  if (count == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  *count = stand_in_settings()->devices;
  LEAVE(CUDA_SUCCESS, "%d", *count);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER(NEEDS_INIT);
  if (device == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  if (device_at(ordinal) == NULL) LEAVE(CUDA_ERROR_INVALID_DEVICE, "%d", ordinal);
  *device = ordinal;
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

/* What every question about a device begins with. */
#define ENTER_DEVICE(device, ordinal, out)                                \
  ENTER(NEEDS_INIT);                                                      \
  const struct device *device = device_at(ordinal);                       \
  if ((out) == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d NULL", ordinal); \
  if (device == NULL) LEAVE(CUDA_ERROR_INVALID_DEVICE, "%d", ordinal)

CUresult cuDeviceGetName(char *name, int size, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, name);
  if (size < 1) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d size %d", ordinal, size);
  snprintf(name, (size_t)size, "%s", device->name);
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, uuid);
  *uuid = device->uuid;
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

CUresult cuDeviceGetPCIBusId(char *text, int size, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, text);
  if (size < 13) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d size %d", ordinal, size);
  snprintf(text, (size_t)size, "%s", device->bus_id);
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, bytes);
  *bytes = device->byte_size;
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

static int attribute_of(const struct device *device, CUdevice_attribute attribute) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
      return device->vmm;
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
      return device->posix_fd;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_MODE:
      return device->compute_mode;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
      return 1;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return 9;
    default:
      return 0;
  }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, value);
  if (attribute < 1 || attribute >= CU_DEVICE_ATTRIBUTE_MAX) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d", attribute);
  *value = attribute_of(device, attribute);
  LEAVE(CUDA_SUCCESS, "%d %d", attribute, ordinal);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, context);
  struct primary *primary = &primaries[ordinal];
  CUresult result = CUDA_SUCCESS;
  pthread_mutex_lock(&mutex);
  if (primary->count == 0) {
    const bool is_shut =
        device->compute_mode == CU_COMPUTEMODE_PROHIBITED ||
        (device->compute_mode == CU_COMPUTEMODE_EXCLUSIVE_PROCESS && card_is_held_by_others(device->card, "context"));
    primary->fd = is_shut ? -1 : card_take(device, "context", stand_in_settings()->context_bytes);
    if (primary->fd < 0) result = is_shut ? CUDA_ERROR_DEVICE_UNAVAILABLE : CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (result == CUDA_SUCCESS) {
    primary->count++;
    *context = (CUcontext)primary;
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%d", ordinal);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  ENTER_DEVICE(device, ordinal, device);
  struct primary *primary = &primaries[ordinal];
  CUresult result = CUDA_SUCCESS;
  pthread_mutex_lock(&mutex);
  if (primary->count == 0) {
    result = CUDA_ERROR_INVALID_CONTEXT;
  } else if (--primary->count == 0) {
    close(primary->fd);
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%d", ordinal);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned int *flags, int *active) {
  ENTER_DEVICE(device, ordinal, active);
  if (flags == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d", ordinal);
  *flags = 0;
  *active = primaries[ordinal].count > 0;
  LEAVE(CUDA_SUCCESS, "%d", ordinal);
}

static struct primary *current(void) {
  return depth == 0 ? NULL : stack[depth - 1];
}

const struct device *current_device(void) {
  const struct primary *primary = current();
  return primary == NULL || primary->count == 0 ? NULL : device_at((CUdevice)(primary - primaries));
}

static bool is_context(CUcontext context) {
  for (int i = 0; i < MAX_DEVICES; i++)
    if ((CUcontext)&primaries[i] == context && primaries[i].count > 0) return true;
  return false;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  ENTER(NEEDS_INIT);
  if (context != NULL && !is_context(context)) LEAVE(CUDA_ERROR_INVALID_CONTEXT, "");
  if (depth > 0) depth--;
  if (context != NULL) stack[depth++] = (struct primary *)context;
  LEAVE(CUDA_SUCCESS, "%s", context == NULL ? "NULL" : "");
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  ENTER(NEEDS_INIT);
  if (context == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  *context = (CUcontext)current();
  LEAVE(CUDA_SUCCESS, "");
}

CUresult cuCtxPushCurrent(CUcontext context) {
  ENTER(NEEDS_INIT);
  if (!is_context(context)) LEAVE(CUDA_ERROR_INVALID_CONTEXT, "");
  if (depth == STACK) LEAVE(CUDA_ERROR_INVALID_VALUE, "");
  stack[depth++] = (struct primary *)context;
  LEAVE(CUDA_SUCCESS, "");
}

CUresult cuCtxPopCurrent(CUcontext *context) {
  ENTER(NEEDS_INIT);
  if (depth == 0) LEAVE(CUDA_ERROR_INVALID_CONTEXT, "");
  if (context != NULL) *context = (CUcontext)current();
  depth--;
  LEAVE(CUDA_SUCCESS, "");
}

CUresult cuCtxGetDevice(CUdevice *ordinal) {
  ENTER(NEEDS_CONTEXT);
  if (ordinal == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  *ordinal = (CUdevice)(current() - primaries);
  LEAVE(CUDA_SUCCESS, "%d", *ordinal);
}

CUresult cuCtxSynchronize(void) {
  ENTER(NEEDS_CONTEXT);
  LEAVE(queue_drain_all(), "");
}

CUresult cuMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  ENTER(NEEDS_CONTEXT);
  if (free_bytes == NULL || total_bytes == NULL) LEAVE(CUDA_ERROR_INVALID_VALUE, "NULL");
  const struct device *device = current_device();
  const size_t used = card_used(device->card);
  *total_bytes = device->byte_size;
  *free_bytes = used > device->byte_size ? 0 : device->byte_size - used;
  LEAVE(CUDA_SUCCESS, "");
}
