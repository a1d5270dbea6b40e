/* What the test has laid down: the driver's version, and the cards with what each can do. */

#include "stand-in.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct settings settings;

const char *stand_in_directory(void) {
  const char *directory = getenv("STAND_IN_CUDA_DIR");
  return directory != NULL && *directory != '\0' ? directory : NULL;
}

void path_of(char path[MAX_PATH], const char *format, ...) {
  va_list list;
  int length = snprintf(path, MAX_PATH, "%s/", stand_in_directory());
  va_start(list, format);
  if (length > 0 && length < MAX_PATH) vsnprintf(path + length, (size_t)(MAX_PATH - length), format, list);
  va_end(list);
}

static bool parse_uuid(const char *text, CUuuid *uuid) {
  const char *digits = strchr(text, '-');
  int count = 0;
  if (digits == NULL) return false;
  for (const char *at = digits + 1; *at != '\0' && count < 32; at++) {
    if (*at == '-') continue;
    const char digit[2] = {*at, '\0'};
    const unsigned long value = strtoul(digit, NULL, 16);
    unsigned char *byte = (unsigned char *)&uuid->bytes[count / 2];
    *byte = count % 2 == 0 ? (unsigned char)(value << 4) : (unsigned char)(*byte | value);
    count++;
  }
  return count == 32;
}

static void set(struct device *device, const char *key, const char *value) {
  const long number = strtol(value, NULL, 0);
  if (strcmp(key, "vmm") == 0) device->vmm = (int)number;
  if (strcmp(key, "posix_fd") == 0) device->posix_fd = (int)number;
  if (strcmp(key, "compute_mode") == 0) device->compute_mode = (int)number;
  if (strcmp(key, "mig") == 0) device->mig = (int)number;
  if (strcmp(key, "persistence") == 0) device->persistence = (int)number;
  if (strcmp(key, "granularity") == 0) device->granularity = (size_t)number;
  if (strcmp(key, "name") == 0) {
    snprintf(device->name, sizeof device->name, "%s", value);
    for (char *at = device->name; *at != '\0'; at++)
      if (*at == '_') *at = ' ';
  }
}

/* `device GPU-… <bytes> key=value …` */
static void read_device(char *line) {
  if (settings.cards == MAX_DEVICES) return;
  struct device *device = &settings.card[settings.cards];
  char *rest = NULL, *uuid = strtok_r(line, " \n", &rest), *bytes = strtok_r(NULL, " \n", &rest);
  if (uuid == NULL || bytes == NULL || !parse_uuid(uuid, &device->uuid)) return;
  device->card = settings.cards++;
  device->vmm = device->posix_fd = 1;
  device->granularity = 2u << 20;
  device->byte_size = strtoull(bytes, NULL, 0);
  snprintf(device->uuid_text, sizeof device->uuid_text, "%s", uuid);
  snprintf(device->name, sizeof device->name, "Stand-in %d", device->card);
  snprintf(device->bus_id, sizeof device->bus_id, "0000:%02x:00.0", device->card + 1);
  for (char *pair = strtok_r(NULL, " \n", &rest); pair != NULL; pair = strtok_r(NULL, " \n", &rest)) {
    char *value = strchr(pair, '=');
    if (value == NULL) continue;
    *value = '\0';
    set(device, pair, value + 1);
  }
}

static void read_line(char *line) {
  char key[32] = "";
  int end = 0;
  if (sscanf(line, "%31s %n", key, &end) != 1) return;
  if (strcmp(key, "device") == 0) read_device(line + end);
  const unsigned long long value = strtoull(line + end, NULL, 0);
  if (strcmp(key, "driver") == 0) settings.driver_version = (int)value;
  if (strcmp(key, "context_bytes") == 0) settings.context_bytes = (size_t)value;
  if (strcmp(key, "nvml") == 0) settings.nvml = (int)value;
  if (strcmp(key, "dirty") == 0) settings.dirty = value != 0;
  if (strcmp(key, "create_needs_context") == 0) settings.create_needs_context = value != 0;
}

/* As the driver reads CUDA_VISIBLE_DEVICES: ordinals, or beginnings of UUIDs; what follows the first that is neither is
 * not seen. */
static void choose_visible(void) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (visible == NULL) {
    memcpy(settings.device, settings.card, sizeof settings.device);
    settings.devices = settings.cards;
    return;
  }
  char text[1024], *rest = NULL;
  snprintf(text, sizeof text, "%s", visible);
  for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
    const struct device *found = NULL;
    char *end = word;
    const long ordinal = strtol(word, &end, 10);
    if (end != word && *end == '\0' && ordinal >= 0 && ordinal < settings.cards) found = &settings.card[ordinal];
    for (int i = 0; i < settings.cards && found == NULL; i++)
      if (strlen(word) > 4 && strncmp(settings.card[i].uuid_text, word, strlen(word)) == 0) found = &settings.card[i];
    if (found == NULL || settings.devices == MAX_DEVICES) return;
    settings.device[settings.devices++] = *found;
  }
}

static void read_settings(void) {
  char path[MAX_PATH], line[1024];
  settings.driver_version = 13000;
  if (stand_in_directory() == NULL) return;
  path_of(path, "settings");
  FILE *file = fopen(path, "re");
  if (file == NULL) return;
  while (fgets(line, sizeof line, file) != NULL) read_line(line);
  fclose(file);
  choose_visible();
}

const struct settings *stand_in_settings(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, read_settings);
  return &settings;
}
