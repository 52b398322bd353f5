/*
 * Make one system call: raw_call NUMBER ARG..., and print the name of its errno, or "0".
 * An argument is a number, or s:TEXT for a pointer to it, or z:SIZE for a pointer to zeros.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char zeros[256];
    long args[6] = {0};
    for (int i = 2; i < argc && i < 8; i++) {
        if (strncmp(argv[i], "s:", 2) == 0)
            args[i - 2] = (long)(argv[i] + 2);
        else if (strncmp(argv[i], "z:", 2) == 0)
            args[i - 2] = (long)zeros;
        else
            args[i - 2] = strtol(argv[i], NULL, 0);
    }
    long result =
        syscall(strtol(argv[1], NULL, 0), args[0], args[1], args[2], args[3], args[4], args[5]);
    puts(result < 0 ? strerrorname_np(errno) : "0");
    return 0;
}
