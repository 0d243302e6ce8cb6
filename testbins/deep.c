/*
 * Directories one in the other, so deep that no path and no row of descriptors reaches the last, and there
 * a file whose name has a new line and a character that turns the direction of writing. It says what
 * uname(2) says the host is called.
 * usage: deep LEVELS
 */
#include "check.h"
#include <sys/utsname.h>

int main(int argc, char **argv)
{
    char name[] = "one-of-many-directories";
    struct utsname u;
    if (argc != 2)
        return 2;
    for (int i = atoi(argv[1]); i > 0; i--) {
        MUST(mkdir(name, 0755));
        MUST(chdir(name));
    }
    MUST(uname(&u));
    put("two\nlines\xe2\x80\xae", u.nodename);
    return 0;
}
