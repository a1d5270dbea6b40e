/*
 * Maps a tensor of a region on a device, tells the sum of its bytes, and lets go when a line comes. The driver is looked up while it
 * runs, so nothing of CUDA is needed to compile it.   cc -o example-device example-device.c -ldl && ./example-device weights w
 * (--write: fills the tensor with 1, 2, 3 first)
 *
 * It has run on a stand-in for the driver alone.
 */

#define _GNU_SOURCE
#define TENSORD_IMPLEMENTATION
#include "tensord.h"

#include <dlfcn.h>

/* Of cuda.h: CUmemAllocationHandleType, CUmemLocationType, CUmemAccess_flags. */
enum { POSIX_FD = 1, ON_DEVICE = 1, MAY_READ = 1, MAY_READ_AND_WRITE = 3 };

typedef struct {
  int location_type, location_id, flags;
} access_description;

typedef unsigned long long address;

/* The driver's functions, each with the newest name that every driver since CUDA 11.4 has. */
static int (*cu_init)(unsigned);
static int (*count_devices)(int *);
static int (*get_device)(int *, int);
static int (*get_uuid)(unsigned char[16], int);
static int (*retain_context)(void **, int);
static int (*release_context)(int);
static int (*set_context)(void *);
static int (*synchronize)(void);
static int (*import_handle)(unsigned long long *, void *, int);
static int (*release_handle)(unsigned long long);
static int (*reserve)(address *, size_t, size_t, address, unsigned long long);
static int (*free_range)(address, size_t);
static int (*map)(address, size_t, size_t, unsigned long long, unsigned long long);
static int (*unmap)(address, size_t);
static int (*set_access)(address, size_t, const access_description *, size_t);
static int (*copy_to_host)(void *, address, size_t);
static int (*copy_to_device)(address, const void *, size_t);

static int load_driver(void) {
  const struct {
    void *function; /* where to put it */
    const char *name;
  } functions[] = {
      {&cu_init, "cuInit"},
      {&count_devices, "cuDeviceGetCount"},
      {&get_device, "cuDeviceGet"},
      {&get_uuid, "cuDeviceGetUuid_v2"},
      {&retain_context, "cuDevicePrimaryCtxRetain"},
      {&release_context, "cuDevicePrimaryCtxRelease_v2"},
      {&set_context, "cuCtxSetCurrent"},
      {&synchronize, "cuCtxSynchronize"},
      {&import_handle, "cuMemImportFromShareableHandle"},
      {&release_handle, "cuMemRelease"},
      {&reserve, "cuMemAddressReserve"},
      {&free_range, "cuMemAddressFree"},
      {&map, "cuMemMap"},
      {&unmap, "cuMemUnmap"},
      {&set_access, "cuMemSetAccess"},
      {&copy_to_host, "cuMemcpyDtoH_v2"},
      {&copy_to_device, "cuMemcpyHtoD_v2"},
  };
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) return fprintf(stderr, "%s\n", dlerror()), -1;
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    void *found = dlsym(library, functions[i].name);
    if (found == NULL) return fprintf(stderr, "%s\n", dlerror()), -1;
    memcpy(functions[i].function, &found, sizeof found);
  }
  return 0;
}

/* What a call of the driver answers; all that it has is freed with the process. */
static void check(int result, const char *what) {
  if (result == 0) return;
  fprintf(stderr, "%s: CUresult %d\n", what, result);
  exit(1);
}

/* This process's number of the device with that UUID. */
static int find_device(const char *uuid) {
  int count, device;
  check(count_devices(&count), "cuDeviceGetCount");
  for (int ordinal = 0; ordinal < count; ordinal++) {
    unsigned char bytes[16];
    char text[64] = "GPU-";
    size_t length = strlen(text);
    check(get_device(&device, ordinal), "cuDeviceGet");
    check(get_uuid(bytes, device), "cuDeviceGetUuid_v2");
    for (int i = 0; i < 16; i++) {
      const int is_border = i == 4 || i == 6 || i == 8 || i == 10;
      length += (size_t)snprintf(text + length, sizeof text - length, "%s%02x", is_border ? "-" : "", bytes[i]);
    }
    if (strcmp(text, uuid) == 0) return device;
  }
  fprintf(stderr, "device %s is not here: CUDA_VISIBLE_DEVICES hides it?\n", uuid);
  exit(1);
}

static void tell(const tensord_tensor *tensor, address start) {
  unsigned long long sum = 0;
  unsigned char *bytes = (unsigned char *)malloc((size_t)tensor->byte_size + 1);
  if (bytes == NULL) exit(1);
  check(copy_to_host(bytes, start + tensor->byte_offset, (size_t)tensor->byte_size), "cuMemcpyDtoH");
  for (uint64_t i = 0; i < tensor->byte_size; i++) sum += bytes[i];
  free(bytes);
  printf("%s of %llu bytes at %llu, sum of bytes %llu\n", tensor->dtype, (unsigned long long)tensor->byte_size,
         (unsigned long long)tensor->byte_offset, sum);
  fflush(stdout);
}

static void fill(const tensord_tensor *tensor, address start) {
  unsigned char *bytes = (unsigned char *)malloc((size_t)tensor->byte_size + 1);
  if (bytes == NULL) exit(1);
  for (uint64_t i = 0; i < tensor->byte_size; i++) bytes[i] = (unsigned char)(i % 3 + 1);
  check(copy_to_device(start + tensor->byte_offset, bytes, (size_t)tensor->byte_size), "cuMemcpyHtoD");
  free(bytes);
}

static int fail(tensord_client *client, const tensord_error *error) {
  tensord_close(client);
  fprintf(stderr, "%s: %s\n%s\n", error->code, error->detail, error->hint);
  return 1;
}

int main(int argc, char **argv) {
  const int writes = argc > 1 && strcmp(argv[1], "--write") == 0;
  if (argc - writes < 2) {
    fprintf(stderr, "usage: %s [--write] region [tensor]\n", argv[0]);
    return 2;
  }
  const char *name = argv[1 + writes], *tensor_name = argc - writes > 2 ? argv[2 + writes] : "data";
  tensord_error error;
  tensord_device_region region;
  tensord_tensor tensor;
  tensord_client *client = tensord_connect(NULL, "{\"client\":{\"name\":\"example-device.c\"}}", &error);
  if (client == NULL) return fail(client, &error);
  if (tensord_attach_device(client, NULL, name, NULL, writes ? TENSORD_WRITE : TENSORD_READ, &region, &error) != 0) {
    return fail(client, &error);
  }
  if (tensord_find_on_device(&region, tensor_name, &tensor, &error) != 0) {
    tensord_detach_device(client, &region);
    return fail(client, &error);
  }
  if (strcmp(region.handle_type, "posix_fd") != 0 || load_driver() != 0) return 1;

  check(cu_init(0), "cuInit");
  const int device = find_device(region.device_uuid);
  const size_t size = (size_t)region.allocation_bytes;
  const access_description access = {ON_DEVICE, device, writes ? MAY_READ_AND_WRITE : MAY_READ};
  void *context;
  unsigned long long handle;
  address start;
  check(retain_context(&context, device), "cuDevicePrimaryCtxRetain");
  check(set_context(context), "cuCtxSetCurrent");
  check(import_handle(&handle, (void *)(uintptr_t)region.handle_fd, POSIX_FD), "cuMemImportFromShareableHandle");
  /* The driver has its own by now. */
  close(region.handle_fd);
  region.handle_fd = -1;
  check(reserve(&start, size, (size_t)region.granularity, 0, 0), "cuMemAddressReserve");
  check(map(start, size, 0, handle, 0), "cuMemMap");
  check(release_handle(handle), "cuMemRelease");
  check(set_access(start, size, &access, 1), "cuMemSetAccess");

  if (writes) fill(&tensor, start);
  tell(&tensor, start);
  for (int c = getchar(); c != EOF; c = getchar()) {
    if (c == '\n') tell(&tensor, start);
  }

  /* An unmap does not wait for what the device was told; and the lease is the last to go. */
  check(synchronize(), "cuCtxSynchronize");
  check(unmap(start, size), "cuMemUnmap");
  check(free_range(start, size), "cuMemAddressFree");
  check(release_context(device), "cuDevicePrimaryCtxRelease");
  tensord_detach_device(client, &region);
  tensord_close(client);
  return 0;
}
