#include <stdio.h>
#include <stdlib.h>

#include "message.h"

int main(int argc, char **argv) {
    const char *greeting = getenv("GREETING");
    printf("%s %s: %s\n", greeting ? greeting : "hi", argc > 1 ? argv[1] : "nobody", MESSAGE);
    return 0;
}
