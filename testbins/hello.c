/* The smallest program there is to run. */
#include <stdio.h>

int main(void)
{
    return puts("hello") < 0;
}
