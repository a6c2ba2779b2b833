#include "support/failing_new.hpp"

#include <cstdlib>
#include <new>

namespace ndarena::test {
namespace {

constexpr long unlimited = -1;
thread_local long left = unlimited;

}  // namespace

memory_for::memory_for(long requests) noexcept { left = requests; }
memory_for::~memory_for() { left = unlimited; }

}  // namespace ndarena::test

// The other forms of new and delete come down to these.
void* operator new(std::size_t size) {
    using ndarena::test::left;
    if (left == 0) {
        throw std::bad_alloc();
    }
    left -= left > 0 ? 1 : 0;
    void* p = std::malloc(size == 0 ? 1 : size);
    if (p == nullptr) {
        throw std::bad_alloc();
    }
    return p;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
