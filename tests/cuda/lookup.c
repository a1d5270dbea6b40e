/* How others find the functions (cuGetProcAddress) and ask about a pointer: what cuda.bindings and numba call beside
 * the rest. */

#include "stand-in.h"

#include <dlfcn.h>
#include <stdio.h>

CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                          CUdriverProcAddressQueryResult *status) {
  static void *self;
  char name[128];
  (void)version, (void)flags;
  if (symbol == NULL || function == NULL) return CUDA_ERROR_INVALID_VALUE;
  if (self == NULL) {
    Dl_info info;
    if (dladdr((void *)(uintptr_t)cuInit, &info) != 0) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }
  /* Asked for without the suffix, of which the newest is meant. */
  snprintf(name, sizeof name, "%s_v2", symbol);
  *function = dlsym(self, name);
  if (*function == NULL) *function = dlsym(self, symbol);
  const bool is_found = *function != NULL;
  if (status != NULL) *status = is_found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return is_found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  ENTER(NEEDS_INIT);
  CUdeviceptr base = 0;
  size_t size = 0;
  const int ordinal = device_of_address(pointer, &base, &size);
  if (data == NULL || ordinal < 0) LEAVE(CUDA_ERROR_INVALID_VALUE, "%d %llx", attribute, pointer);
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *(unsigned int *)data = CU_MEMORYTYPE_DEVICE;
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *(CUdeviceptr *)data = pointer;
      break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *(unsigned int *)data = 0;
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *(int *)data = ordinal;
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *(CUdeviceptr *)data = base;
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *(size_t *)data = size;
      break;
    default:
      LEAVE(CUDA_ERROR_INVALID_VALUE, "%d %llx", attribute, pointer);
  }
  LEAVE(CUDA_SUCCESS, "%d %llx", attribute, pointer);
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **data, CUdeviceptr pointer) {
  ENTER(NEEDS_INIT);
  /* One that the pointer does not have is zero, as that of no device is -2. */
  for (unsigned int i = 0; i < count; i++)
    if (cuPointerGetAttribute(data[i], attributes[i], pointer) != CUDA_SUCCESS)
      *(int *)data[i] = attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? -2 : 0;
  LEAVE(CUDA_SUCCESS, "%u %llx", count, pointer);
}
