/* The program of every benchmark: it does nothing, and exits. */
int main(void)
{
    return 0;
}
