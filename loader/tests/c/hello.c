#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static int shared;

static void *thread(void *p) { return malloc(100), p; }

int main(void) {
    pthread_t t;
    pthread_create(&t, 0, thread, &shared);
    pthread_join(t, 0);
    int *p = malloc(4);
    *p = 5;
    printf("hello %d\n", *p);
    free(p);
    return 0;
}
