/* Shows Python processes another time of day than the machine's, which changes while they run.
 *
 * To be preloaded (LD_PRELOAD). TEST_CLOCKS names a folder; in it the file with the machine's host
 * name has 8 bytes, the seconds by which its clock is ahead. Clocks that nobody sets, sleeps, and
 * the times of files, which the kernel gives, stay what they are; so do other programs, such as
 * those of the queue, which lets nobody in whose clock is minutes off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t right = 0;
static const volatile int64_t *ahead = &right;

__attribute__((constructor)) static void look(void) {
    const char *folder = getenv("TEST_CLOCKS");
    char host[HOST_NAME_MAX + 1], path[PATH_MAX];
    if (!folder || strncmp(program_invocation_short_name, "python", 6)) return;
    if (gethostname(host, sizeof host)) return;
    snprintf(path, sizeof path, "%s/%s", folder, host);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *page = mmap(NULL, sizeof right, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return (int)failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    long failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += *ahead;
    return (int)failed;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
