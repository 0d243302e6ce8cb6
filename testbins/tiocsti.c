/* Pushes a command into the terminal's input, as an escape to the caller's shell would. */
#include <stdio.h>
#include <sys/ioctl.h>
#include <termios.h>

int main(void)
{
    for (const char *c = "echo pwned\n"; *c; c++)
        ioctl(0, TIOCSTI, c);
    char paste[2] = { 3, 0 };
    ioctl(0, TIOCLINUX, paste);
    tcdrain(1);
    puts("done");
    return 0;
}
