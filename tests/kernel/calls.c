/*
 * Make system calls and print the errno of each, 0 for success: `calls NUMBER[,ARG]... ...`.
 * NUMBER,int80 makes one of i386's. Static, so that it needs of a policy no more than it tries.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(int number)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d\n", number);
    if (write(1, text, (size_t)length) != length)
        _exit(99);
}

static long by_int80(unsigned long number)
{
#ifdef __x86_64__
    long done;
    __asm__ volatile("int $0x80"
                     : "=a"(done)
                     : "a"(number)
                     : "memory", "r8", "r9", "r10", "r11");
    return done;
#else
    (void)number;
    return -1;
#endif
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        unsigned long word[7] = {0};
        char *at = argv[i];
        for (int n = 0; n < 7 && *at; n++) {
            word[n] = strtoul(at, &at, 0);
            at += *at == ',';
        }
        errno = 0;
        if (!strcmp(at, "int80")) {
            say(by_int80(word[0]) < 0);
            continue;
        }
        long done =
            syscall((long)word[0], word[1], word[2], word[3], word[4], word[5], word[6]);
        say(done == -1 ? errno : 0);
    }
    return 0;
}
