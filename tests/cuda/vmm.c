/*
 * Virtual memory management: handles, reserved ranges, mappings. Addresses are ranges that nothing may touch, as a
 * GPU's are for the processor; the bytes of a mapping lie in a second one that only copies know. Handles are this
 * process's alone.
 */

#include "stand-in.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct handle {
  CUmemGenericAllocationHandle id;
  int fd, references, ordinal;
  bool is_exportable;
  size_t byte_size;
};

struct range {
  CUdeviceptr address;
  size_t byte_size;
};

struct mapping {
  CUdeviceptr address;
  size_t byte_size;
  CUmemGenericAllocationHandle handle;
  int ordinal, access;
  char *bytes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;
static struct range *ranges;
static struct mapping *mappings;
static size_t handle_count, range_count, mapping_count;
static CUmemGenericAllocationHandle last_id;

/* Room for one more at the end of a list. */
#define GROW(list, count) \
  ((list) = realloc((list), ((count) + 1) * sizeof *(list)), (list) == NULL ? abort() : (void)0, &(list)[(count)++])

static struct handle *find_handle(CUmemGenericAllocationHandle id) {
  for (size_t i = 0; i < handle_count; i++)
    if (handles[i].id == id) return &handles[i];
  return NULL;
}

static CUmemGenericAllocationHandle add_handle(int fd, int ordinal, bool is_exportable, size_t byte_size) {
  /* Another process's number is nobody's here, and no number comes twice. */
  const CUmemGenericAllocationHandle id = ((CUmemGenericAllocationHandle)getpid() << 32) + ++last_id;
  *GROW(handles, handle_count) = (struct handle){id, fd, 1, ordinal, is_exportable, byte_size};
  return id;
}

static CUresult check(const CUmemAllocationProp *property) {
  if (property == NULL || property->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (property->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_INVALID_VALUE;
  const struct device *device = device_at(property->location.id);
  if (device == NULL) return CUDA_ERROR_INVALID_DEVICE;
  const int types = (int)property->requestedHandleTypes;
  if ((types & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0 || property->win32HandleMetaData != NULL)
    return CUDA_ERROR_INVALID_VALUE;
  if (!device->vmm || (types != 0 && !device->posix_fd)) return CUDA_ERROR_NOT_SUPPORTED;
  return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *property,
                                       CUmemAllocationGranularity_flags option) {
  ENTER(NEEDS_INIT);
  const CUresult result = check(property);
  if (result != CUDA_SUCCESS) LEAVE(result, "");
  if (granularity == NULL || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) LEAVE(CUDA_ERROR_INVALID_VALUE, "");
  *granularity = device_at(property->location.id)->granularity;
  LEAVE(CUDA_SUCCESS, "%zu", *granularity);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *id, size_t size, const CUmemAllocationProp *property,
                     unsigned long long flags) {
  ENTER(stand_in_settings()->create_needs_context ? NEEDS_CONTEXT : NEEDS_INIT);
  const CUresult result = check(property);
  if (result != CUDA_SUCCESS) LEAVE(result, "%zu", size);
  const int ordinal = property->location.id;
  const struct device *device = device_at(ordinal);
  if (id == NULL || flags != 0 || size == 0 || size % device->granularity != 0)
    LEAVE(CUDA_ERROR_INVALID_VALUE, "%zu", size);
  const int fd = card_take(device, "memory", size);
  if (fd < 0)
    LEAVE(fd == -1 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_OPERATING_SYSTEM, "%zu card %d", size, device->card);
  pthread_mutex_lock(&mutex);
  *id = add_handle(fd, ordinal, property->requestedHandleTypes != 0, size);
  pthread_mutex_unlock(&mutex);
  LEAVE(CUDA_SUCCESS, "%zu card %d -> %llx", size, device->card, *id);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle id) {
  ENTER(NEEDS_INIT);
  pthread_mutex_lock(&mutex);
  struct handle *handle = find_handle(id);
  const bool is_known = handle != NULL;
  if (is_known && --handle->references == 0) {
    close(handle->fd);
    *handle = handles[--handle_count];
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(is_known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, "%llx", id);
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle id, CUmemAllocationHandleType type,
                                      unsigned long long flags) {
  ENTER(NEEDS_INIT);
  if (out == NULL || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    LEAVE(CUDA_ERROR_INVALID_VALUE, "%llx", id);
  pthread_mutex_lock(&mutex);
  const struct handle *handle = find_handle(id);
  const bool is_known = handle != NULL && handle->is_exportable;
  const int fd = is_known ? fcntl(handle->fd, F_DUPFD_CLOEXEC, 3) : -1;
  pthread_mutex_unlock(&mutex);
  if (!is_known) LEAVE(CUDA_ERROR_INVALID_VALUE, "%llx", id);
  if (fd < 0) LEAVE(CUDA_ERROR_OPERATING_SYSTEM, "%llx", id);
  *(int *)out = fd;
  LEAVE(CUDA_SUCCESS, "%llx -> fd %d", id, fd);
}

static int ordinal_of_card(int card) {
  const struct settings *settings = stand_in_settings();
  for (int i = 0; i < settings->devices; i++)
    if (settings->device[i].card == card) return i;
  return -1;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *id, void *os_handle,
                                        CUmemAllocationHandleType type) {
  ENTER(NEEDS_CONTEXT);
  /* The descriptor's number is the pointer. */
  const int fd = (int)(intptr_t)os_handle;
  struct stat status;
  if (id == NULL || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) LEAVE(CUDA_ERROR_INVALID_VALUE, "fd %d", fd);
  const int card = card_of_descriptor(fd);
  if (card < 0 || fstat(fd, &status) != 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "fd %d", fd);
  const int ordinal = ordinal_of_card(card);
  if (ordinal < 0) LEAVE(CUDA_ERROR_INVALID_DEVICE, "fd %d card %d", fd, card);
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) LEAVE(CUDA_ERROR_OPERATING_SYSTEM, "fd %d", fd);
  pthread_mutex_lock(&mutex);
  *id = add_handle(copy, ordinal, true, (size_t)status.st_size);
  pthread_mutex_unlock(&mutex);
  LEAVE(CUDA_SUCCESS, "fd %d -> %llx", fd, *id);
}

/* Pages that nobody reaches. NULL where there is no room. */
static char *reserve_pages(size_t size, size_t alignment) {
  const size_t whole = size + alignment;
  char *start = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return NULL;
  const size_t before = (alignment - (uintptr_t)start % alignment) % alignment;
  if (before > 0) munmap(start, before);
  munmap(start + before + size, whole - before - size);
  return start + before;
}

CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wish,
                             unsigned long long flags) {
  ENTER(NEEDS_CONTEXT);
  const size_t granularity = current_device()->granularity;
  const bool is_power = (alignment & (alignment - 1)) == 0;
  (void)wish;
  if (address == NULL || flags != 0 || size == 0 || size % granularity != 0 || !is_power)
    LEAVE(CUDA_ERROR_INVALID_VALUE, "%zu", size);
  char *pages = reserve_pages(size, alignment > granularity ? alignment : granularity);
  if (pages == NULL) LEAVE(CUDA_ERROR_OUT_OF_MEMORY, "%zu", size);
  *address = (CUdeviceptr)pages;
  pthread_mutex_lock(&mutex);
  *GROW(ranges, range_count) = (struct range){*address, size};
  pthread_mutex_unlock(&mutex);
  LEAVE(CUDA_SUCCESS, "%zu -> %llx", size, *address);
}

static bool is_mapped_anywhere(CUdeviceptr address, size_t size) {
  for (size_t i = 0; i < mapping_count; i++)
    if (mappings[i].address < address + size && address < mappings[i].address + mappings[i].byte_size) return true;
  return false;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
  ENTER(NEEDS_CONTEXT);
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < range_count; i++) {
    if (ranges[i].address != address || ranges[i].byte_size != size || is_mapped_anywhere(address, size)) continue;
    munmap((void *)address, size);
    ranges[i] = ranges[--range_count];
    result = CUDA_SUCCESS;
    break;
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%llx %zu", address, size);
}

static bool is_reserved(CUdeviceptr address, size_t size) {
  for (size_t i = 0; i < range_count; i++)
    if (ranges[i].address <= address && address + size <= ranges[i].address + ranges[i].byte_size) return true;
  return false;
}

static CUresult map_behind_mutex(CUdeviceptr address, size_t size, const struct handle *handle) {
  /* The whole handle, to pages that are reserved and free. */
  if (handle == NULL || size != handle->byte_size || address % device_at(handle->ordinal)->granularity != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (!is_reserved(address, size) || is_mapped_anywhere(address, size)) return CUDA_ERROR_INVALID_VALUE;
  char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, handle->fd, 0);
  if (bytes == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  madvise(bytes, size, MADV_DONTFORK);
  *GROW(mappings, mapping_count) = (struct mapping){address, size, handle->id, handle->ordinal, 0, bytes};
  return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle id,
                  unsigned long long flags) {
  ENTER(NEEDS_CONTEXT);
  if (offset != 0 || flags != 0 || size == 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "%llx %zu %llx", address, size, id);
  pthread_mutex_lock(&mutex);
  const CUresult result = map_behind_mutex(address, size, find_handle(id));
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%llx %zu %llx", address, size, id);
}

CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
  ENTER(NEEDS_CONTEXT);
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < mapping_count; i++) {
    /* Exactly one mapping. */
    if (mappings[i].address != address || mappings[i].byte_size != size) continue;
    munmap(mappings[i].bytes, size);
    mappings[i] = mappings[--mapping_count];
    result = CUDA_SUCCESS;
    break;
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%llx %zu", address, size);
}

static CUresult set_access(CUdeviceptr address, size_t size, const CUmemAccessDesc *access) {
  size_t covered = 0;
  for (size_t i = 0; i < mapping_count; i++) {
    const struct mapping *mapping = &mappings[i];
    if (mapping->address + mapping->byte_size <= address || address + size <= mapping->address) continue;
    if (mapping->address < address || address + size < mapping->address + mapping->byte_size)
      return CUDA_ERROR_INVALID_VALUE;
    /* Another card's would be peer access, which no stand-in has. */
    if (mapping->ordinal != access->location.id) return CUDA_ERROR_INVALID_DEVICE;
    covered += mapping->byte_size;
  }
  if (covered != size) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < mapping_count; i++)
    if (address <= mappings[i].address && mappings[i].address < address + size) mappings[i].access = (int)access->flags;
  return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const CUmemAccessDesc *access, size_t count) {
  ENTER(NEEDS_CONTEXT);
  if (access == NULL || count != 1 || size == 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "%llx %zu", address, size);
  const int flags = (int)access->flags;
  const bool is_known = flags == CU_MEM_ACCESS_FLAGS_PROT_NONE || flags == CU_MEM_ACCESS_FLAGS_PROT_READ ||
                        flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (!is_known || access->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
    LEAVE(CUDA_ERROR_INVALID_VALUE, "%llx %zu", address, size);
  if (device_at(access->location.id) == NULL) LEAVE(CUDA_ERROR_INVALID_DEVICE, "%llx %zu", address, size);
  pthread_mutex_lock(&mutex);
  const CUresult result = set_access(address, size, access);
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%llx %zu access %d", address, size, flags);
}

static struct mapping *find_mapping(CUdeviceptr address) {
  for (size_t i = 0; i < mapping_count; i++)
    if (mappings[i].address <= address && address < mappings[i].address + mappings[i].byte_size) return &mappings[i];
  return NULL;
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr address) {
  ENTER(NEEDS_CONTEXT);
  pthread_mutex_lock(&mutex);
  const struct mapping *mapping = find_mapping(address);
  const bool is_known = flags != NULL && location != NULL && mapping != NULL && mapping->ordinal == location->id;
  if (is_known) *flags = (unsigned long long)mapping->access;
  pthread_mutex_unlock(&mutex);
  LEAVE(is_known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, "%llx", address);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *id, void *address) {
  ENTER(NEEDS_INIT);
  pthread_mutex_lock(&mutex);
  const struct mapping *mapping = find_mapping((CUdeviceptr)address);
  struct handle *handle = mapping == NULL ? NULL : find_handle(mapping->handle);
  const bool is_known = id != NULL && handle != NULL;
  if (is_known) {
    handle->references++;
    *id = handle->id;
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(is_known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, "%p", address);
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *property, CUmemGenericAllocationHandle id) {
  ENTER(NEEDS_INIT);
  pthread_mutex_lock(&mutex);
  const struct handle *handle = find_handle(id);
  const bool is_known = property != NULL && handle != NULL;
  if (is_known) {
    memset(property, 0, sizeof *property);
    property->type = CU_MEM_ALLOCATION_TYPE_PINNED;
    property->requestedHandleTypes =
        handle->is_exportable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
    property->location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = handle->ordinal};
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(is_known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, "%llx", id);
}

bool each_run(CUdeviceptr address, size_t size, int needed, void (*each)(char *bytes, size_t size, void *state),
              void *state) {
  bool is_mapped = true;
  pthread_mutex_lock(&mutex);
  for (int pass = 0; pass < 2 && is_mapped; pass++) {
    for (CUdeviceptr at = address; at < address + size && is_mapped;) {
      const struct mapping *mapping = find_mapping(at);
      is_mapped = mapping != NULL && (mapping->access & needed) == needed;
      if (!is_mapped) break;
      const size_t start = at - mapping->address, left = address + size - at, there = mapping->byte_size - start;
      if (pass == 1) each(mapping->bytes + start, left < there ? left : there, state);
      at += left < there ? left : there;
    }
  }
  pthread_mutex_unlock(&mutex);
  return is_mapped;
}

int device_of_address(CUdeviceptr address, CUdeviceptr *base, size_t *size) {
  int ordinal = -1;
  pthread_mutex_lock(&mutex);
  const struct mapping *mapping = find_mapping(address);
  if (mapping != NULL) {
    ordinal = mapping->ordinal;
    *base = mapping->address;
    *size = mapping->byte_size;
  }
  pthread_mutex_unlock(&mutex);
  return ordinal;
}

/* Memory of the older kind, which nothing exports. */
CUresult cuMemAlloc(CUdeviceptr *address, size_t size) {
  ENTER(NEEDS_CONTEXT);
  if (address == NULL || size == 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "%zu", size);
  const struct device *device = current_device();
  const size_t whole = (size + device->granularity - 1) / device->granularity * device->granularity;
  CUdevice ordinal = ordinal_of_card(device->card);
  const int fd = card_take(device, "memory", whole);
  char *pages = fd < 0 ? NULL : reserve_pages(whole, device->granularity);
  char *bytes = pages == NULL ? MAP_FAILED : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (bytes == MAP_FAILED) LEAVE(CUDA_ERROR_OUT_OF_MEMORY, "%zu", size);
  *address = (CUdeviceptr)pages;
  pthread_mutex_lock(&mutex);
  *GROW(mappings, mapping_count) =
      (struct mapping){*address, whole, 0, ordinal, CU_MEM_ACCESS_FLAGS_PROT_READWRITE, bytes};
  pthread_mutex_unlock(&mutex);
  LEAVE(CUDA_SUCCESS, "%zu -> %llx", size, *address);
}

CUresult cuMemFree(CUdeviceptr address) {
  ENTER(NEEDS_CONTEXT);
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < mapping_count; i++) {
    if (mappings[i].address != address || mappings[i].handle != 0) continue;
    munmap(mappings[i].bytes, mappings[i].byte_size);
    munmap((void *)address, mappings[i].byte_size);
    mappings[i] = mappings[--mapping_count];
    result = CUDA_SUCCESS;
    break;
  }
  pthread_mutex_unlock(&mutex);
  LEAVE(result, "%llx", address);
}
