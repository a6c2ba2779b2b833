#include "platform/platform.hpp"

namespace ndarena::platform {

void mutex::lock_slow() noexcept {
    static constexpr int spins = 100;
    static constexpr unsigned wait_milliseconds = 1000;
    for (int i = 0; i < spins; ++i) {
        std::uint32_t expected = 0;
        if (word_.load(std::memory_order_relaxed) == 0 &&
            word_.compare_exchange_weak(expected, 1, std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
            return;
        }
        cpu_pause();
    }
    while (word_.exchange(2, std::memory_order_acquire) != 0) {
        futex_wait(&word_, 2, wait_milliseconds);
    }
}

void mutex::wake() noexcept { futex_wake_one(&word_); }

}  // namespace ndarena::platform
