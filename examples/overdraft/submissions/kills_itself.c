#include <signal.h>
#include <stdio.h>

int main(void)
{
    puts("overdrawn 4");
    fflush(stdout);
    raise(SIGKILL);
}
