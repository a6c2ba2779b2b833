// Leaves for chains: one over the C library, which checks what it is told.
#pragma once

#include "resources/resources.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace ndarena::resources {

// Every piece comes back once, with the size and alignment it was asked for with.
class strict_malloc final : public resource {
public:
    ~strict_malloc() override { EXPECT_EQ(live_.size(), 0U) << "memory was not given back"; }

    std::size_t n_live() {
        const std::lock_guard<std::mutex> guard(mutex_);
        return live_.size();
    }
    std::size_t refuse_from = std::size_t{1} << 40;  // bytes

private:
    using facts = std::pair<std::size_t, std::size_t>;

    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        EXPECT_NE(nbytes, 0U);
        EXPECT_EQ(alignment & (alignment - 1), 0U);
        void* p = nullptr;
        if (nbytes >= refuse_from || ::posix_memalign(&p, alignment, nbytes) != 0) {
            return nullptr;
        }
        std::memset(p, zero ? 0 : 0xA5, nbytes);
        const std::lock_guard<std::mutex> guard(mutex_);
        live_[p] = {nbytes, alignment};
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        {
            const std::lock_guard<std::mutex> guard(mutex_);
            const auto found = live_.find(p);
            if (found == live_.end()) {
                ADD_FAILURE() << "freed, but never given or freed before";
                return;
            }
            EXPECT_EQ(found->second, facts(nbytes, alignment));
            live_.erase(found);
        }
        std::memset(p, 0x5A, nbytes);
        std::free(p);
    }

    std::mutex mutex_;
    std::map<void*, facts> live_;
};

}  // namespace ndarena::resources
