// Runs code on the stack, also where it has yet to grow: exits with 7 if it may.
#include <string.h>

static const unsigned char code[] = {0xb8, 7, 0, 0, 0, 0xc3}; // mov eax, 7; ret

int main(void) {
    char here[64];
    memcpy(here, code, sizeof code);
    __asm__ volatile("" ::: "memory");
    int a = ((int (*)(void))here)();
    char deep[300000];
    memcpy(deep, code, sizeof code);
    __asm__ volatile("" ::: "memory");
    int b = ((int (*)(void))deep)();
    return a == b ? a : 0;
}
