/*
 * The memory of a card: files in `card<N>/`. Each open description of one carries a lock, which descriptors and
 * mappings share and the kernel drops with the last of them. What is locked is in use, by whichever process; what is
 * not is gone. So a SIGKILL anywhere frees what the real thing would free, and a test can list what is left. A counter
 * would be wrong after a kill, and a memfd cannot be listed.
 */

#include "stand-in.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* One process at a time counts and takes. */
static int gate_close(void) {
  char path[MAX_PATH];
  path_of(path, "gate");
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) flock(fd, LOCK_EX);
  return fd;
}

static bool is_locked(int fd) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Behind the gate. Calls `each` with each file that is in use, and removes the others. */
static void each_file(int card, void (*each)(const char *name, size_t byte_size, void *state), void *state) {
  char path[MAX_PATH];
  path_of(path, "card%d", card);
  DIR *directory = opendir(path);
  if (directory == NULL) return;
  for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
    struct stat status;
    if (entry->d_name[0] == '.') continue;
    const int fd = openat(dirfd(directory), entry->d_name, O_RDWR | O_CLOEXEC);
    if (fd < 0) continue;
    if (!is_locked(fd)) {
      unlinkat(dirfd(directory), entry->d_name, 0);
    } else if (fstat(fd, &status) == 0) {
      each(entry->d_name, (size_t)status.st_size, state);
    }
    close(fd);
  }
  closedir(directory);
}

static void add(const char *name, size_t byte_size, void *state) {
  (void)name;
  *(size_t *)state += byte_size;
}

static size_t used_behind_gate(int card) {
  size_t sum = 0;
  each_file(card, add, &sum);
  return sum;
}

size_t card_used(int card) {
  const int gate = gate_close();
  const size_t sum = used_behind_gate(card);
  close(gate);
  return sum;
}

struct search {
  const char *kind;
  bool found;
};

static void look(const char *name, size_t byte_size, void *state) {
  struct search *search = state;
  const size_t length = strlen(search->kind);
  (void)byte_size;
  if (strncmp(name, search->kind, length) != 0 || name[length] != '-') return;
  if (atoi(name + length + 1) != getpid()) search->found = true;
}

bool card_is_held_by_others(int card, const char *kind) {
  struct search search = {kind, false};
  const int gate = gate_close();
  each_file(card, look, &search);
  close(gate);
  return search.found;
}

/* What another process left there, if the test wants to see whether anybody looks. */
static void soil(int fd, size_t byte_size) {
  char *bytes = byte_size == 0 ? MAP_FAILED : mmap(NULL, byte_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return;
  memset(bytes, 0xa5, byte_size);
  munmap(bytes, byte_size);
}

static int make(const struct device *device, const char *kind, size_t byte_size) {
  static long count;
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
  char path[MAX_PATH];
  path_of(path, "card%d", device->card);
  mkdir(path, 0777);
  path_of(path, "card%d/%s-%d-%ld", device->card, kind, getpid(), __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST));
  const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return -2;
  if (fchmod(fd, 0666) == 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0 && ftruncate(fd, (off_t)byte_size) == 0) return fd;
  unlink(path);
  close(fd);
  return -2;
}

int card_take(const struct device *device, const char *kind, size_t byte_size) {
  const int gate = gate_close();
  const size_t used = used_behind_gate(device->card);
  int fd = -1;
  if (gate < 0)
    fd = -2;
  else if (used <= device->byte_size && byte_size <= device->byte_size - used)
    fd = make(device, kind, byte_size);
  close(gate);
  if (fd >= 0 && stand_in_settings()->dirty) soil(fd, byte_size);
  return fd;
}

int card_of_descriptor(int fd) {
  char link[64], path[MAX_PATH] = "", folder[MAX_PATH];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (readlink(link, path, sizeof path - 1) < 0) return -1;
  for (int card = 0; card < stand_in_settings()->cards; card++) {
    path_of(folder, "card%d/memory-", card);
    if (strncmp(path, folder, strlen(folder)) == 0) return card;
  }
  return -1;
}
