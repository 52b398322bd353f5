/* A program that leaves something behind: a file in /tmp. */
#include <fcntl.h>

int main(void)
{
    return open("/tmp/file", O_WRONLY | O_CREAT, 0600) < 0;
}
