/*
 * Attaches to a region by its name, tells of its tensors, and does so again each time that a line comes: whatever becomes of
 * the server, what is mapped is there.   cc -o example example.c && ./example weights   (--write: fills it with 1, 2, 3 first)
 */

#define _GNU_SOURCE
#define TENSORD_IMPLEMENTATION
#include "tensord.h"

static void tell(const tensord_tensor *tensor) {
  unsigned long long sum = 0;
  for (uint64_t i = 0; i < tensor->byte_size; i++) sum += ((const unsigned char *)tensor->data)[i];
  printf("%s [", tensor->dtype);
  for (int i = 0; i < tensor->dimensions; i++) printf("%s%llu", i == 0 ? "" : ", ", (unsigned long long)tensor->shape[i]);
  printf("] sum of bytes %llu\n", sum);
  fflush(stdout);
}

static int fail(const tensord_error *error) {
  fprintf(stderr, "%s: %s\n%s\n", error->code, error->detail, error->hint);
  return 1;
}

int main(int argc, char **argv) {
  const int writes = argc > 1 && strcmp(argv[1], "--write") == 0;
  if (argc - writes < 2) {
    fprintf(stderr, "usage: %s [--write] region [tensor] [broker's socket]\n", argv[0]);
    return 2;
  }
  const char *name = argv[1 + writes], *tensor_name = argc - writes > 2 ? argv[2 + writes] : "data";
  tensord_error error;
  tensord_region region;
  tensord_tensor tensor;
  tensord_client *client =
      tensord_connect(argc - writes > 3 ? argv[3 + writes] : NULL, "{\"client\":{\"name\":\"example.c\"}}", &error);
  if (client == NULL) return fail(&error);
  if (tensord_attach(client, NULL, name, NULL, writes ? TENSORD_WRITE : TENSORD_READ, &region, &error) != 0 ||
      tensord_find(&region, tensor_name, &tensor, &error) != 0) {
    return fail(&error);
  }
  for (uint64_t i = 0; writes && i < tensor.byte_size; i++) ((unsigned char *)tensor.data)[i] = (unsigned char)(i % 3 + 1);
  tell(&tensor);
  for (int c = getchar(); c != EOF; c = getchar()) {
    if (c == '\n') tell(&tensor);
  }
  tensord_detach(client, &region);
  tensord_close(client);
  return 0;
}
