// Memory that runs out on order. The test program has its own operator new:
// failing_new.cpp.
#pragma once

namespace ndarena::test {

// While it lives, this thread's requests to operator new succeed `requests`
// times; then std::bad_alloc is thrown.
class memory_for {
public:
    explicit memory_for(long requests) noexcept;
    ~memory_for();
    memory_for(const memory_for&) = delete;
    memory_for& operator=(const memory_for&) = delete;
};

}  // namespace ndarena::test
