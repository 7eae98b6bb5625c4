/* Kills a program at its N-th change of a file, as a power cut or the end of its memory might:
   CRASH_AT=N LD_PRELOAD=crash.so program. Of the writes to a file the first counts, and is done half.
   CRASH_COUNT=FILE: how many there were, where it ended by itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(result, name, ...)                     \
  static result (*real)(__VA_ARGS__);               \
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, name)

static long at = -1, seen;

static int now(void) { return ++seen == at; }
static void die(void) { kill(getpid(), SIGKILL); }
static void event(void) {
  if (now()) die();
}

__attribute__((constructor)) static void begin(void) {
  const char* n = getenv("CRASH_AT");
  if (n) at = atol(n);
}
__attribute__((destructor)) static void end(void) {
  const char* path = getenv("CRASH_COUNT");
  char text[24];
  if (!path) return;
  const int length = snprintf(text, sizeof text, "%ld", seen), fd = creat(path, 0666);
  if (fd >= 0 && write(fd, text, (size_t)length) == length) close(fd);
}

static FILE* last;
FILE* fopen(const char* path, const char* mode) {
  REAL(FILE*, "fopen", const char*, const char*);
  if (strpbrk(mode, "wa+")) event(), last = NULL;
  return real(path, mode);
}
FILE* fopen64(const char* path, const char* mode) {
  REAL(FILE*, "fopen64", const char*, const char*);
  if (strpbrk(mode, "wa+")) event(), last = NULL;
  return real(path, mode);
}
size_t fwrite(const void* data, size_t size, size_t n, FILE* f) {
  REAL(size_t, "fwrite", const void*, size_t, size_t, FILE*);
  if (f != stdout && f != stderr && f != last) {
    last = f;
    if (now()) {
      real(data, 1, size * n / 2, f);
      fflush(f);
      die();
    }
  }
  return real(data, size, n, f);
}
int open(const char* path, int flags, ...) {
  REAL(int, "open", const char*, int, ...);
  va_list more;
  va_start(more, flags);
  const int mode = va_arg(more, int);
  va_end(more);
  if (flags & O_CREAT) event();
  return real(path, flags, mode);
}
int fsync(int fd) {
  REAL(int, "fsync", int);
  event();
  return real(fd);
}
int rename(const char* from, const char* to) {
  REAL(int, "rename", const char*, const char*);
  event();
  return real(from, to);
}
int remove(const char* path) {
  REAL(int, "remove", const char*);
  event();
  return real(path);
}
int unlink(const char* path) {
  REAL(int, "unlink", const char*);
  event();
  return real(path);
}
int unlinkat(int folder, const char* path, int flags) {
  REAL(int, "unlinkat", int, const char*, int);
  event();
  return real(folder, path, flags);
}
int mkdir(const char* path, mode_t mode) {
  REAL(int, "mkdir", const char*, mode_t);
  event();
  return real(path, mode);
}
