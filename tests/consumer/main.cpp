// Makes an arena, uses it, and says so.
#include <cstdio>

#include <ndarena/arena.hpp>

int main() {
    auto arena = ndarena::arena::scratch("/tmp");
    if (!arena) {
        std::fprintf(stderr, "%s\n", arena.err().message.c_str());
        return 1;
    }
    std::printf("consumer: ok %s\n", FOUND_VERSION);
    return 0;
}
