/*
 * tensord-ring.h: receives from a ring, and answers its requests, without a socket. Beside tensord.h, of which it needs the
 * broker's client; after docs/protocol.md, "The bell", where each step has its reason.
 *
 *   tensord_ring ring;
 *   tensord_message message;
 *   if (tensord_open_ring(client, "default", "requests", NULL, TENSORD_WRITE, &ring, &error) != 0) return fail(&error);
 *   while (tensord_receive(&ring, -1, &message, &error) == 0) {
 *     if (message.is_request) {
 *       ... reads (const float *)message.data, writes the result there or behind it ...
 *       tensord_answer(&message, &result, &error);
 *     } else {
 *       tensord_close_message(&message);
 *     }
 *   }
 *   tensord_close_ring(client, &ring);
 *
 * One thread at a time has a ring, and one message of it at a time. A forked child has neither.
 */

#ifndef TENSORD_RING_H
#define TENSORD_RING_H

#ifndef TENSORD_H
#include "tensord.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TENSORD_PACKED_BYTES 128
#define TENSORD_PACKED_DIMENSIONS 8

/* What a packed reference says. `kind` is 0 of a tensor and 3 of a request. */
typedef struct {
  char dtype[16];
  int dimensions, kind;
  uint64_t shape[TENSORD_PACKED_DIMENSIONS];
  uint64_t generation, byte_offset, byte_size, dev, ino;
  uint8_t region[16];
} tensord_packed;

/* Reads 128 bytes. Returns 0, or -1 if they are no packed reference. */
int tensord_unpack(const uint8_t raw[TENSORD_PACKED_BYTES], tensord_packed *packed);

typedef struct {
  tensord_region region; /* all of the file */
  int lock_fd, access;
  uint64_t slots, slot_bytes, entries, first_slot, base, dev, ino;
  uint8_t mark[16];
  uint32_t seen, begun;
  uint64_t lost; /* messages that were gone before they were received, of those that were sent since it was opened */
} tensord_ring;

/* One that was received. Its slot is locked until it is closed or answered. */
typedef struct {
  tensord_ring *ring;
  void *data; /* in the slot, whose slot_bytes a request's result may have; read-only unless is_request */
  uint64_t byte_size, generation, slot;
  char dtype[16];
  int dimensions, is_request;
  uint64_t shape[TENSORD_PACKED_DIMENSIONS];
} tensord_message;

/* A result that lies in the request's slot, `offset` bytes from its first, a multiple of 8. */
typedef struct {
  const char *dtype;
  int dimensions;
  uint64_t shape[TENSORD_PACKED_DIMENSIONS];
  uint64_t offset;
} tensord_result;

/* Opens a ring by its region's name. With TENSORD_WRITE it takes requests; with TENSORD_READ it passes over them. */
int tensord_open_ring(tensord_client *client, const char *model, const char *name, const char *version, int access,
                      tensord_ring *ring, tensord_error *error);
/* Close its message first. `client` may be NULL, as of tensord_detach. */
void tensord_close_ring(tensord_client *client, tensord_ring *ring);

/*
 * The next message; waits at most `timeout_ms`, without end if that is negative. Fails with "deadline-exceeded", and with
 * "stale-ref" when all was received and the owner has closed the ring, or died.
 */
int tensord_receive(tensord_ring *ring, int timeout_ms, tensord_message *message, tensord_error *error);
void tensord_close_message(tensord_message *message);
/* Sends the result of a request, and closes it. Fails, and leaves it open, if the result is no place in its slot. */
int tensord_answer(tensord_message *message, const tensord_result *result, tensord_error *error);

#ifdef __cplusplus
}
#endif
#endif

#ifdef TENSORD_IMPLEMENTATION
#ifndef TENSORD_RING_IMPLEMENTED
#define TENSORD_RING_IMPLEMENTED

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>

enum { TENSORD_LINE = 64, TENSORD_TAIL = 64, TENSORD_WANTED = 128, TENSORD_ENTRIES = 256, TENSORD_MAX_SLOTS = 4096, TENSORD_POLLS = 30 };
#define TENSORD_OWNER_BYTE ((off_t)(((uint64_t)1 << 62) + ((uint64_t)1 << 60)))
#define TENSORD_EXACT ((uint64_t)1 << 53)

__extension__ typedef unsigned __int128 tensord__u128;

/* By its code, which is never renumbered; 0 is none. */
static const struct {
  const char *name;
  int bits;
} tensord__dtypes[] = {
    {"", 0},      {"BOOL", 8},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8},
    {"F8_E4M3", 8}, {"F8_E8M0", 8},   {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},  {"U16", 16}, {"F16", 16}, {"BF16", 16},
    {"I32", 32},  {"U32", 32},        {"F32", 32},        {"C64", 64},    {"F64", 64},    {"I64", 64}, {"U64", 64}};

static uint8_t tensord__parity(unsigned value) { return (uint8_t)(value | (unsigned)(__builtin_popcount(value) & 1) << 7); }

static uint64_t tensord__u64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value); /* little-endian, as this header is for x86-64 and arm64 */
  return value;
}

/* Bytes of a tensor, or UINT64_MAX if they are no whole ones or too many. */
static uint64_t tensord__size(int code, int dimensions, const uint64_t *shape) {
  tensord__u128 bits = (unsigned)tensord__dtypes[code].bits;
  int empty = 0;
  for (int i = 0; i < dimensions; i++) empty |= shape[i] == 0;
  for (int i = 0; !empty && i < dimensions; i++) {
    bits *= shape[i];
    if (bits >= (tensord__u128)TENSORD_EXACT * 8) return UINT64_MAX;
  }
  if (empty) return 0;
  return bits % 8 == 0 ? (uint64_t)(bits / 8) : UINT64_MAX;
}

static int tensord__code(const char *dtype) {
  for (int code = 1; code < (int)(sizeof tensord__dtypes / sizeof *tensord__dtypes); code++) {
    if (strcmp(tensord__dtypes[code].name, dtype) == 0) return code;
  }
  return 0;
}

int tensord_unpack(const uint8_t raw[TENSORD_PACKED_BYTES], tensord_packed *packed) {
  const int code = raw[4] & 0x7f, dimensions = raw[5] & 0x7f;
  memset(packed, 0, sizeof *packed);
  if (memcmp(raw, "TSR1", 4) != 0 || code == 0 || code >= (int)(sizeof tensord__dtypes / sizeof *tensord__dtypes) ||
      dimensions > TENSORD_PACKED_DIMENSIONS || raw[4] != tensord__parity((unsigned)code) || raw[5] != tensord__parity((unsigned)dimensions) ||
      (raw[6] != 0 && raw[6] != 3) || raw[7] != 0) {
    return -1;
  }
  snprintf(packed->dtype, sizeof packed->dtype, "%s", tensord__dtypes[code].name);
  packed->dimensions = dimensions;
  packed->kind = raw[6];
  packed->generation = tensord__u64(raw + 8);
  packed->byte_offset = tensord__u64(raw + 16);
  packed->byte_size = tensord__u64(raw + 24);
  packed->dev = tensord__u64(raw + 32);
  packed->ino = tensord__u64(raw + 40);
  memcpy(packed->region, raw + 48, sizeof packed->region);
  for (int i = 0; i < TENSORD_PACKED_DIMENSIONS; i++) {
    packed->shape[i] = tensord__u64(raw + 64 + 8 * i);
    if (packed->shape[i] >= TENSORD_EXACT || (i >= dimensions && packed->shape[i] != 0)) return -1;
  }
  if (packed->generation >= TENSORD_EXACT || packed->byte_offset >= TENSORD_EXACT || packed->byte_size >= TENSORD_EXACT) return -1;
  return tensord__size(code, dimensions, packed->shape) == packed->byte_size ? 0 : -1;
}

/* The first 128 bits of a region's id. */
static int tensord__mark(const char *id, uint8_t mark[16]) {
  tensord__u128 bits = 0;
  if (strncmp(id, "reg_", 4) != 0 || strlen(id) != 30) return -1;
  for (int i = 0; i < 26; i++) {
    const char c = id[4 + i];
    const int digit = c >= 'a' && c <= 'z' ? c - 'a' : c >= '2' && c <= '7' ? c - '2' + 26 : -1;
    if (digit < 0) return -1;
    /* The last character has 3 bits of them. */
    bits = i < 25 ? bits << 5 | (unsigned)digit : bits << 3 | (unsigned)digit >> 2;
  }
  for (int i = 0; i < 16; i++) mark[i] = (uint8_t)(bits >> (8 * (15 - i)));
  return 0;
}

static uint8_t *tensord__at(const tensord_ring *ring, uint64_t offset) { return (uint8_t *)ring->region.data + offset; }
static uint32_t *tensord__word(const tensord_ring *ring, uint64_t offset) { return (uint32_t *)(void *)tensord__at(ring, offset); }
static uint64_t *tensord__long(const tensord_ring *ring, uint64_t offset) { return (uint64_t *)(void *)tensord__at(ring, offset); }
static uint32_t tensord__tail(const tensord_ring *ring) {
  return __atomic_load_n(tensord__word(ring, ring->base + TENSORD_TAIL), __ATOMIC_ACQUIRE);
}
static uint64_t tensord__record(const tensord_ring *ring, uint64_t slot) {
  return ring->base + TENSORD_ENTRIES + TENSORD_PACKED_BYTES * (ring->entries + slot);
}

/* Locks bytes, or unlocks them, or asks. Returns 0, 1 if somebody else has them, or -1. */
static int tensord__flock(int fd, int command, short type, uint64_t start, uint64_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
  if (fcntl(fd, command, &lock) != 0) return errno == EAGAIN || errno == EACCES ? 1 : -1;
  return command == F_OFD_GETLK && lock.l_type != F_UNLCK;
}

static int tensord__slot_lock(const tensord_ring *ring, short type, uint64_t slot) {
  return tensord__flock(ring->lock_fd, F_OFD_SETLK, type, ring->first_slot + slot * ring->slot_bytes, ring->slot_bytes);
}

static void tensord__wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

/* Reads what the bell says of itself, and refuses what contradicts it. */
static int tensord__read_bell(tensord_ring *ring, tensord_error *error) {
  tensord_tensor bell;
  uint32_t header[4];
  if (tensord_find(&ring->region, "bell", &bell, error) != 0) return -1;
  ring->base = (bell.byte_offset + TENSORD_LINE - 1) / TENSORD_LINE * TENSORD_LINE;
  if (ring->base + TENSORD_LINE > ring->region.byte_size) {
    return tensord__fail(error, "validation-failed", "Cannot open the ring: its bell is too short", "Is it a ring?");
  }
  memcpy(header, tensord__at(ring, ring->base), sizeof header);
  ring->slots = header[2];
  ring->slot_bytes = tensord__u64(tensord__at(ring, ring->base + 16));
  if (memcmp(header, "TSB2", 4) == 0 && header[1] > 2) {
    return tensord__fail(error, "feature-unavailable", "Cannot open the ring: it has a later layout than 2", "Get a newer tensord-ring.h.");
  }
  for (ring->entries = 2; ring->entries < 2 * ring->slots; ring->entries *= 2) continue;
  ring->first_slot = 4096 + 8 * ring->slots;
  if (memcmp(header, "TSB2", 4) != 0 || header[1] != 2 || ring->slots < 1 || ring->slots > TENSORD_MAX_SLOTS || header[3] != ring->entries ||
      ring->slot_bytes == 0 || ring->slot_bytes % 8 != 0 || ring->slot_bytes >= TENSORD_EXACT ||
      bell.byte_size != TENSORD_ENTRIES + TENSORD_LINE + TENSORD_PACKED_BYTES * (ring->entries + ring->slots) ||
      bell.byte_offset != ring->first_slot + ring->slots * ring->slot_bytes) {
    return tensord__fail(error, "validation-failed", "Cannot open the ring: its bell contradicts itself", "Is it a ring?");
  }
  return 0;
}

int tensord_open_ring(tensord_client *client, const char *model, const char *name, const char *version, int access,
                      tensord_ring *ring, tensord_error *error) {
  struct stat file;
  char id[40] = "";
  tensord__handed handed;
  memset(ring, 0, sizeof *ring);
  ring->lock_fd = -1;
  ring->access = access;
  if (tensord_attach(client, model, name, version, access, &ring->region, error) != 0) return -1;
  /* Another description, for the locks: that of a mapping would outlive its holder in a child. */
  int result = tensord__hand_out(client, model, name, version, access, id, sizeof id, &handed, error);
  if (result == 0) {
    ring->lock_fd = handed.region;
    close(handed.tensors);
    if (handed.handle >= 0) close(handed.handle);
    result = fstat(ring->lock_fd, &file) != 0 ? tensord__fail_errno(error, "look at the ring's file", "Open it again.")
             : strcmp(id, ring->region.id) != 0 || tensord__mark(id, ring->mark) != 0
                 ? tensord__fail(error, "stale-ref", "Cannot open the ring: another one has its name by now", "Open it again.")
                 : tensord__read_bell(ring, error);
    /* The lease that came with it: the mapping has one. */
    tensord__flock(ring->lock_fd, F_OFD_SETLK, F_UNLCK, (uint64_t)1 << 62, 0);
    tensord__release(client, id);
  }
  if (result != 0) {
    tensord_close_ring(client, ring);
    return -1;
  }
  ring->dev = file.st_dev;
  ring->ino = file.st_ino;
  ring->begun = tensord__tail(ring);
  ring->seen = ring->begun - (uint32_t)(ring->entries - 1);
  return 0;
}

void tensord_close_ring(tensord_client *client, tensord_ring *ring) {
  if (ring->lock_fd >= 0) close(ring->lock_fd);
  tensord_detach(client, &ring->region);
  memset(ring, 0, sizeof *ring);
  ring->lock_fd = -1;
}

static void tensord__let_go(const tensord_ring *ring, uint64_t slot) {
  tensord__slot_lock(ring, F_UNLCK, slot);
  uint32_t *const wanted = tensord__word(ring, ring->base + TENSORD_WANTED);
  if (__atomic_load_n(wanted, __ATOMIC_SEQ_CST) != 0) tensord__wake(wanted);
}

/* Goes on behind so many entries. Those of before the first look are nobody's loss. */
static void tensord__pass(tensord_ring *ring, uint32_t count) {
  ring->seen += count;
  const uint32_t known = ring->seen - ring->begun;
  if (known < (uint32_t)1 << 31) ring->lost += count < known ? count : known;
}

/* Opens one entry. Returns 0, 1 if it is to be looked at again, 2 if it is passed over, 3 if it is lost, or -1. */
static int tensord__open_entry(tensord_ring *ring, const uint8_t *raw, tensord_message *message) {
  tensord_packed packed;
  if (tensord_unpack(raw, &packed) != 0 || packed.dev != ring->dev || packed.ino != ring->ino ||
      memcmp(packed.region, ring->mark, sizeof ring->mark) != 0 || packed.byte_size > ring->slot_bytes) {
    return 3;
  }
  const uint64_t slot = packed.generation % TENSORD_MAX_SLOTS;
  if (slot >= ring->slots || packed.generation < TENSORD_MAX_SLOTS || packed.byte_offset != ring->first_slot + slot * ring->slot_bytes) {
    return 3;
  }
  const int is_request = packed.kind == 3;
  uint64_t *const record = tensord__long(ring, tensord__record(ring, slot));
  if (is_request && (ring->access != TENSORD_WRITE || __atomic_load_n(record + 1, __ATOMIC_ACQUIRE) == packed.generation)) return 2;
  const int locked = tensord__slot_lock(ring, is_request ? F_WRLCK : F_RDLCK, slot);
  if (locked < 0) return -1;
  if (__atomic_load_n(tensord__long(ring, 4096 + 8 * slot), __ATOMIC_ACQUIRE) != packed.generation) {
    if (locked == 0) tensord__let_go(ring, slot);
    return 3;
  }
  if (locked == 1) return 1;
  if (is_request && (record[0] == packed.generation || record[1] == packed.generation)) {
    tensord__let_go(ring, slot);
    return 2;
  }
  if (is_request) __atomic_store_n(record + 1, packed.generation, __ATOMIC_RELEASE);
  memset(message, 0, sizeof *message);
  message->ring = ring;
  message->data = tensord__at(ring, packed.byte_offset);
  message->byte_size = packed.byte_size;
  message->generation = packed.generation;
  message->slot = slot;
  message->is_request = is_request;
  message->dimensions = packed.dimensions;
  memcpy(message->dtype, packed.dtype, sizeof message->dtype);
  memcpy(message->shape, packed.shape, sizeof message->shape);
  return 0;
}

/* Takes what is there. Returns as tensord__open_entry; 2 if there is nothing. */
static int tensord__take(tensord_ring *ring, tensord_message *message) {
  const uint32_t window = (uint32_t)(ring->entries - 1);
  uint8_t raw[TENSORD_PACKED_BYTES];
  for (uint32_t round = 0; round < 2 * window; round++) {
    const uint32_t ahead = tensord__tail(ring) - ring->seen;
    if (ahead == 0) return 2;
    if (ahead > window) {
      tensord__pass(ring, ahead - window);
      continue;
    }
    memcpy(raw, tensord__at(ring, ring->base + TENSORD_ENTRIES + TENSORD_PACKED_BYTES * (ring->seen & (ring->entries - 1))), sizeof raw);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (tensord__tail(ring) - ring->seen > window) continue; /* written over meanwhile, maybe in part */
    const int opened = tensord__open_entry(ring, raw, message);
    if (opened < 0 || opened == 1) return opened;
    if (opened == 3) {
      tensord__pass(ring, 1);
      continue;
    }
    ring->seen++;
    if (opened == 0) return 0;
  }
  return 2;
}

int tensord_receive(tensord_ring *ring, int timeout_ms, tensord_message *message, tensord_error *error) {
  struct timespec now, until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += timeout_ms / 1000;
  until.tv_nsec += timeout_ms % 1000 * 1000000L;
  for (;;) {
    const int taken = tensord__take(ring, message);
    if (taken == 0) return 0;
    if (taken < 0) return tensord__fail_errno(error, "lock a slot of the ring", "Open the ring again.");
    clock_gettime(CLOCK_MONOTONIC, &now);
    const long left_ns = (until.tv_sec - now.tv_sec) * 1000000000L + until.tv_nsec - now.tv_nsec;
    if (timeout_ms >= 0 && left_ns <= 0) {
      return tensord__fail(error, "deadline-exceeded", "Cannot receive: nothing was sent in time", "Wait longer.");
    }
    const long slice_ns = taken == 1 ? 1000000L : 100000000L;
    const struct timespec sleep = {0, timeout_ms >= 0 && left_ns < slice_ns ? left_ns : slice_ns};
    if (taken == 1) {
      nanosleep(&sleep, NULL);
      continue;
    }
    for (int i = 0; i < TENSORD_POLLS && tensord__tail(ring) == ring->seen; i++) sched_yield();
    if (tensord__tail(ring) != ring->seen) continue;
    syscall(SYS_futex, tensord__word(ring, ring->base + TENSORD_TAIL), FUTEX_WAIT, ring->seen, &sleep, NULL, 0);
    if (tensord__tail(ring) == ring->seen && tensord__flock(ring->lock_fd, F_OFD_GETLK, F_WRLCK, TENSORD_OWNER_BYTE, 1) == 0 &&
        tensord__tail(ring) == ring->seen) {
      return tensord__fail(error, "stale-ref", "Cannot receive: the ring's owner has closed it, or died", "Open its next ring.");
    }
  }
}

static void tensord__finish(tensord_message *message, const tensord_result *result, int code, int kind, uint64_t byte_size) {
  const tensord_ring *ring = message->ring;
  uint8_t *const record = tensord__at(ring, tensord__record(ring, message->slot));
  memset(record + 16, 0, TENSORD_PACKED_BYTES - 16);
  memcpy(record + 16, &result->offset, 8);
  memcpy(record + 24, &byte_size, 8);
  record[32] = tensord__parity((unsigned)code);
  record[33] = tensord__parity((unsigned)result->dimensions);
  record[34] = (uint8_t)kind;
  memcpy(record + 64, result->shape, 8 * (size_t)result->dimensions);
  __atomic_store_n((uint64_t *)(void *)record, message->generation, __ATOMIC_RELEASE);
  tensord__let_go(ring, message->slot);
  tensord__wake((uint32_t *)(void *)record);
  message->ring = NULL;
}

int tensord_answer(tensord_message *message, const tensord_result *result, tensord_error *error) {
  const int code = tensord__code(result->dtype);
  const int fits = message->ring != NULL && message->is_request && code != 0 && result->dimensions >= 0 &&
                   result->dimensions <= TENSORD_PACKED_DIMENSIONS && result->offset % 8 == 0;
  const uint64_t size = fits ? tensord__size(code, result->dimensions, result->shape) : UINT64_MAX;
  if (!fits || size > message->ring->slot_bytes || result->offset > message->ring->slot_bytes - size) {
    return tensord__fail(error, "validation-failed", "Cannot answer: it is no request, or the result is no tensor in its slot",
                         "Make the ring with a larger slot_bytes.");
  }
  tensord__finish(message, result, code, 5, size);
  return 0;
}

void tensord_close_message(tensord_message *message) {
  static const char reason[] = "its worker closed it without an answer";
  if (message->ring == NULL) return;
  if (message->is_request) {
    const uint64_t room = message->ring->slot_bytes, size = room < sizeof reason - 1 ? room : sizeof reason - 1;
    const tensord_result said = {"U8", 1, {size}, 0};
    memcpy(message->data, reason, (size_t)size);
    tensord__finish(message, &said, tensord__code("U8"), 6, size);
    return;
  }
  tensord__let_go(message->ring, message->slot);
  message->ring = NULL;
}

#endif
#endif
