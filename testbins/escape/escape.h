/* What the attempts of escape have in common. */
#ifndef ESCAPE_H
#define ESCAPE_H
#include "../check.h"

/* The arguments, as escape.c describes them. */
extern const char *secret, *volume, *abstract_name;
extern pid_t host_pid;
extern dev_t device;

/* One way to get out: 0, it is refused. Runs in a process of its own, for at most ten seconds. */
struct attempt {
    const char *name;
    int (*attempt)(void);
};
#define ATTEMPT(name) { #name, name }

/* By subject, each list ended by one without a name. */
extern const struct attempt paths_attempts[], races_attempts[], mounts_attempts[], processes_attempts[],
    machine_attempts[];

/* Does this descriptor lead to the host's secret? It is closed. */
int fd_is_secret(int fd);
int reads_secret(const char *path);
int reads_secret_at(int dir, const char *path);

/* Path of NAME in the volume; valid for seven more. */
const char *in(const char *name);
/* The secret by way of the top of the tree; valid until the next. */
const char *up(const char *start);
#endif
