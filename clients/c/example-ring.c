/*
 * Receives from a ring by its region's name, and answers requests of F32 with twice what they have, until the ring ends.
 * cc -o example-ring example-ring.c && ./example-ring requests   (--vectors: reads packed references in hex, a line each)
 */

#define _GNU_SOURCE
#define TENSORD_IMPLEMENTATION
#include "tensord.h"
#include "tensord-ring.h"

static int fail(const tensord_error *error) {
  fprintf(stderr, "%s: %s\n%s\n", error->code, error->detail, error->hint);
  return 1;
}

static void tell(const char *dtype, int dimensions, const uint64_t *shape) {
  printf("%s [", dtype);
  for (int i = 0; i < dimensions; i++) printf("%s%llu", i == 0 ? "" : ", ", (unsigned long long)shape[i]);
  printf("]");
}

static int read_vectors(void) {
  char line[1024];
  while (fgets(line, sizeof line, stdin) != NULL) {
    uint8_t raw[TENSORD_PACKED_BYTES] = {0};
    tensord_packed packed;
    unsigned byte;
    int count = 0;
    while (count < TENSORD_PACKED_BYTES && sscanf(line + 2 * count, "%2x", &byte) == 1) raw[count++] = (uint8_t)byte;
    if (count < TENSORD_PACKED_BYTES || strlen(line) != 2 * TENSORD_PACKED_BYTES + 1 || tensord_unpack(raw, &packed) != 0) {
      printf("refused\n");
      continue;
    }
    tell(packed.dtype, packed.dimensions, packed.shape);
    printf(" %d %llu %llu %llu %llu %llu ", packed.kind, (unsigned long long)packed.generation, (unsigned long long)packed.byte_offset,
           (unsigned long long)packed.byte_size, (unsigned long long)packed.dev, (unsigned long long)packed.ino);
    for (int i = 0; i < 16; i++) printf("%02x", packed.region[i]);
    printf("\n");
  }
  return 0;
}

int main(int argc, char **argv) {
  tensord_error error;
  tensord_ring ring;
  tensord_message message;
  if (argc == 2 && strcmp(argv[1], "--vectors") == 0) return read_vectors();
  if (argc != 2) {
    fprintf(stderr, "usage: %s region\n", argv[0]);
    return 2;
  }
  tensord_client *client = tensord_connect(NULL, "{\"client\":{\"name\":\"example-ring.c\"}}", &error);
  if (client == NULL || tensord_open_ring(client, NULL, argv[1], NULL, TENSORD_WRITE, &ring, &error) != 0) return fail(&error);
  printf("open\n");
  fflush(stdout);
  while (tensord_receive(&ring, -1, &message, &error) == 0) {
    tell(message.dtype, message.dimensions, message.shape);
    printf("%s\n", message.is_request ? " request" : "");
    fflush(stdout);
    tensord_result result = {message.dtype, message.dimensions, {0}, 0};
    memcpy(result.shape, message.shape, sizeof result.shape);
    if (message.is_request && strcmp(message.dtype, "F32") == 0) {
      for (uint64_t i = 0; i < message.byte_size / sizeof(float); i++) ((float *)message.data)[i] *= 2;
      if (tensord_answer(&message, &result, &error) == 0) continue;
    }
    tensord_close_message(&message);
  }
  printf("lost %llu\n", (unsigned long long)ring.lost);
  tensord_close_ring(client, &ring);
  tensord_close(client);
  return strcmp(error.code, "stale-ref") == 0 ? 0 : fail(&error);
}
