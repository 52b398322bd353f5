/* Hostile: wants the compiler to print the password hashes in its messages. */
#include "/etc/shadow"

int main(void) { return 0; }
