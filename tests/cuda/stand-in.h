/*
 * A stand-in for libcuda.so.1, for tests on machines without a GPU. It proves how the driver is called, in which order,
 * and what is undone; it is no evidence of what a GPU does. README.md beside it says what it is strict about.
 */

#ifndef STAND_IN_H
#define STAND_IN_H

#define _GNU_SOURCE
#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_DEVICES = 16, MAX_PATH = 512 };

/* A card as `settings` describes it. `card` is its place there; ordinals are what CUDA_VISIBLE_DEVICES leaves, in its
 * order. */
struct device {
  char uuid_text[48];
  CUuuid uuid;
  char name[64];
  char bus_id[16];
  int card;
  size_t byte_size;
  size_t granularity;
  int vmm, posix_fd, compute_mode, mig, persistence;
};

/* settings.c: what the test has laid down in STAND_IN_CUDA_DIR. */
struct settings {
  int driver_version;
  /* Charged for each context of a process, as a real one takes memory. */
  size_t context_bytes;
  /* Whether memory that is new holds bytes of somebody else. */
  bool dirty;
  /* Whether cuMemCreate asks for a context. */
  bool create_needs_context;
  /* Of nvml.c. */
  int nvml;
  /* Of the machine, whatever this process may see. */
  int cards;
  struct device card[MAX_DEVICES];
  int devices;
  struct device device[MAX_DEVICES];
};
/* The directory, or NULL where the test gave none: then there is no device. */
const char *stand_in_directory(void);
void path_of(char path[MAX_PATH], const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Read once in a process. */
const struct settings *stand_in_settings(void);

/* card.c: the memory of a card, as files whose open descriptions carry a lock. */
/* A descriptor of `byte_size` new bytes of the card, or -1 where it has no more of them, -2 where the system refuses.
 */
int card_take(const struct device *device, const char *kind, size_t byte_size);
/* What is in use, by all processes. */
size_t card_used(int card);
/* The card of a descriptor that an export gave, or -1. */
int card_of_descriptor(int fd);
/* Whether another process has something of this kind on the card. */
bool card_is_held_by_others(int card, const char *kind);

/* calls.c: every call is counted, may be told to fail, and is logged. */
enum needs { NEEDS_NOTHING, NEEDS_INIT, NEEDS_CONTEXT };
struct call {
  const char *name;
  long number;
};
/* What is to be answered at once, or CUDA_SUCCESS where the call goes on. */
CUresult call_enter(struct call *call, enum needs needs);
CUresult call_leave(const struct call *call, CUresult result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The context is broken: every later call of this process answers `result`. */
void call_break(CUresult result);
#define ENTER(needs)                                 \
  struct call call = {__func__, 0};                  \
  const CUresult entered = call_enter(&call, needs); \
  if (entered != CUDA_SUCCESS) return call_leave(&call, entered, "")
#define LEAVE(result, ...) return call_leave(&call, result, __VA_ARGS__)

/* device.c */
/* This process, and no parent of it, has called cuInit. */
bool is_initialised(void);
/* The device of the thread's current context, or NULL. */
const struct device *current_device(void);
/* NULL for an ordinal that this process does not see. */
const struct device *device_at(CUdevice ordinal);

/* vmm.c */
/* Of `size` bytes at `address`, all mapped with the access `needed` (1 to read, 3 to write): calls `each` for each run.
   False, and nothing is called, where they are not. */
bool each_run(CUdeviceptr address, size_t size, int needed, void (*each)(char *bytes, size_t size, void *state),
              void *state);
/* Ordinal of the device that has the bytes at `address`, or -1. */
int device_of_address(CUdeviceptr address, CUdeviceptr *base, size_t *size);

/* queue.c */
/* Does what was queued on all streams of this process. */
CUresult queue_drain_all(void);

#endif
