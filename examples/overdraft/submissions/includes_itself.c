/* Hostile: includes itself, a compiler's line of complaint each time, down to its nesting limit. */
#include __FILE__
#error again
int main(void) { return 0; }
