// End in one of many ways with 8 MiB touched: exit_ways WAY. What a tracer could disturb.

#define _GNU_SOURCE

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS = 8 };

static const size_t size = 8 * 1024 * 1024;
static char *self;

static void touch(size_t bytes)
{
    volatile char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < bytes; at += PAGE) {
        memory[at] = 1;
    }
}

static void pause_ms(long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

static void *touch_later(void *argument)
{
    (void)argument;
    pause_ms(100);
    touch(size);
    return NULL;
}

static void *exec_self(void *argument)
{
    (void)argument;
    execl(self, self, "plain", NULL);
    _exit(9);
}

static void *exit_group(void *argument)
{
    (void)argument;
    exit(5);
}

static void *wait_forever(void *argument)
{
    (void)argument;
    for (;;) {
        pause();
    }
}

static void *end_at_once(void *argument)
{
    return argument;
}

// For half a second. Its memory takes long to be listed.
static void *start_threads(void *argument)
{
    struct timespec now, end;
    for (int i = 0; i < 20000; i++) {
        (void)mmap(NULL, PAGE, i % 2 ? PROT_READ : PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                   0);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    do {
        pthread_t thread;
        if (pthread_create(&thread, NULL, end_at_once, NULL) == 0) {
            pthread_join(thread, NULL);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec * 1000000000 + now.tv_nsec <
             end.tv_sec * 1000000000 + end.tv_nsec + 500000000);
    exit(0);
    return argument;
}

static void start(void *(*main)(void *))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, main, NULL) != 0) {
        exit(8);
    }
}

// A child that stops; its end and its stop are its parent's to see.
static int of_children(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        touch(4 * size); // which is not the parent's
        _exit(3);
    }
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) {
        return 20;
    }
    kill(child, SIGCONT);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
        return 21;
    }
    return WEXITSTATUS(status) == 3 ? 0 : 22;
}

// It stops itself; a child sees that it has stopped, and lets it go on.
static int of_stops(void)
{
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0) {
        char path[64], text[512] = "";
        (void)snprintf(path, sizeof path, "/proc/%d/stat", parent);
        for (int tries = 0; tries < 2000; tries++) {
            FILE *file = fopen(path, "r");
            if (file == NULL || fgets(text, sizeof text, file) == NULL) {
                _exit(1);
            }
            fclose(file);
            char state = strrchr(text, ')')[2];
            if (state == 'T' || state == 't') {
                pause_ms(20); // and stays so
                kill(parent, SIGCONT);
                _exit(0);
            }
            pause_ms(1);
        }
        _exit(2);
    }
    raise(SIGSTOP);
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    (void)number;
    caught++;
}

static int of_signals(void)
{
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 1000; i++) {
        raise(SIGUSR1);
    }
    return caught == 1000 ? 0 : 30;
}

static void *raise_forever(void *argument)
{
    (void)argument;
    for (;;) {
        raise(SIGUSR1);
    }
}

static int of_ptrace(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
            _exit(errno);
        }
        raise(SIGSTOP);
        _exit(4);
    }
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        return 40;
    }
    ptrace(PTRACE_CONT, child, NULL, NULL);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 4) {
        return 41;
    }
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 && errno == EPERM ? 0 : 42;
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    self = argv[0];
    if (strcmp(way, "late") == 0) { // another thread has most, when the first has ended
        start(touch_later);
        pthread_exit(NULL);
    }
    touch(size);
    if (strcmp(way, "thread-exec") == 0) { // of which the first thread ends
        touch(4 * size);
        start(exec_self);
        wait_forever(NULL);
    } else if (strcmp(way, "thread-exit") == 0) {
        start(exit_group);
        wait_forever(NULL);
    } else if (strcmp(way, "threads") == 0) {
        for (int i = 0; i < THREADS; i++) {
            start(i % 2 ? wait_forever : touch_later);
        }
    } else if (strcmp(way, "many-threads") ==
               0) { // one after another, when the first has ended
        start(start_threads);
        pthread_exit(NULL);
    } else if (strcmp(way, "storm") == 0) { // of stops: its tracer has no rest
        signal(SIGUSR1, on_signal);
        for (int i = 0; i < THREADS; i++) {
            start(raise_forever);
        }
        raise_forever(NULL);
    } else if (strcmp(way, "exec") == 0) {
        touch(4 * size);
        execl(self, self, "plain", NULL);
    } else if (strcmp(way, "kill") == 0) {
        raise(SIGKILL);
    } else if (strcmp(way, "segv") == 0) {
        raise(SIGSEGV);
    } else if (strcmp(way, "forever") == 0) {
        wait_forever(NULL);
    } else if (strcmp(way, "kill-threads") == 0) {
        for (int i = 0; i < THREADS; i++) {
            start(wait_forever);
        }
        raise(SIGKILL);
    } else if (strcmp(way, "children") == 0) {
        return of_children();
    } else if (strcmp(way, "stops") == 0) {
        return of_stops();
    } else if (strcmp(way, "signals") == 0) {
        return of_signals();
    } else if (strcmp(way, "ptrace") == 0) {
        return of_ptrace();
    } else if (strcmp(way, "untraced") == 0) { // born so that only its tracer hears of it
        for (int i = 0; i < THREADS; i++) {
            if (syscall(SYS_clone, 0, NULL, NULL, NULL, NULL) == 0) {
                wait_forever(NULL);
            }
        }
    }
    return 0;
}
