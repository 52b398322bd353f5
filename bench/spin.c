/* A program that never ends, for measuring how late a kill lands. */
int main(void)
{
    for (volatile unsigned long i = 0;; i++)
        ;
}
