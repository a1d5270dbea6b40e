/* A stand-in for NVIDIA's management library: what of a card is free, and whether its driver stays up. `nvml 1` in the settings has it
 * start, `nvml 2` hang; without a word it does not start, as where the kernel's driver is not. */

#include "stand-in.h"

#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };

struct memory {
  unsigned long long total, free, used;
};

int nvmlInit_v2(void);
int nvmlDeviceGetHandleByUUID(const char *uuid, const struct device **device);
int nvmlDeviceGetMemoryInfo(const struct device *device, struct memory *memory);
int nvmlDeviceGetPersistenceMode(const struct device *device, int *mode);
int nvmlDeviceGetMigMode(const struct device *device, unsigned int *current, unsigned int *pending);

static bool started;

int nvmlInit_v2(void) {
  const int nvml = stand_in_settings()->nvml;
  while (nvml == 2) pause();
  started = nvml == 1;
  return started ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, const struct device **device) {
  const struct settings *settings = stand_in_settings();
  if (!started) return UNINITIALIZED;
  for (int i = 0; i < settings->cards; i++) {
    if (strcmp(settings->card[i].uuid_text, uuid) != 0) continue;
    *device = &settings->card[i];
    return SUCCESS;
  }
  return NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(const struct device *device, struct memory *memory) {
  const unsigned long long used = card_used(device->card);
  *memory = (struct memory){device->byte_size, device->byte_size - used, used};
  return SUCCESS;
}

int nvmlDeviceGetPersistenceMode(const struct device *device, int *mode) {
  *mode = device->persistence;
  return SUCCESS;
}

int nvmlDeviceGetMigMode(const struct device *device, unsigned int *current, unsigned int *pending) {
  *current = *pending = (unsigned int)device->mig;
  return SUCCESS;
}
