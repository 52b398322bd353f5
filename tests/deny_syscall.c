/*
 * deny_syscall NR ERRNO [ARG VALUE] PROGRAM: run PROGRAM with one system call failing.
 * Injects faults for tests of the helper: with ARG, only the calls whose argument
 * ARG (0 to 5) equals VALUE in its low 32 bits fail.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: deny_syscall NR ERRNO [ARG VALUE] PROGRAM\n");
        return 2;
    }
    unsigned nr = (unsigned)atoi(argv[1]), error = (unsigned)atoi(argv[2]);
    unsigned arg = argc == 6 ? (unsigned)atoi(argv[3]) : 0;
    unsigned value = argc == 6 ? (unsigned)strtoul(argv[4], NULL, 0) : 0;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * arg),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (argc == 4) /* whatever the arguments */
        filter[3] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0);
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return 2;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return 2;
    execl(argv[argc - 1], "keeper", (char *)NULL);
    return 2;
}
