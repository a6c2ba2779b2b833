// The mutex, with one thread and with several.
#include "platform/platform.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace ndarena::platform {
namespace {

TEST(Mutex, IsFreeAgainAfterEveryTurn) {
    mutex m;
    for (int i = 0; i < 3; ++i) {
        {
            const lock_guard guard(m);
            EXPECT_FALSE(m.try_lock()) << "held, whoever asks";
        }
        EXPECT_TRUE(m.try_lock());
        m.unlock();
    }
}

// One thread takes it plainly, several by locked instructions: a holder may
// meet the others at any time.
TEST(Mutex, ExcludesThreadsThatStartWhileItIsHeld) NDARENA_NO_ANALYSIS {
    mutex m;
    m.lock();
    std::atomic<bool> inside{false};
    std::thread other([&] {
        const lock_guard guard(m);
        inside = true;
    });
    for (int i = 0; i < 1000; ++i) {
        std::this_thread::yield();
        ASSERT_FALSE(inside);
    }
    m.unlock();
    other.join();
    EXPECT_TRUE(inside);
    EXPECT_TRUE(m.try_lock());
    m.unlock();
}

TEST(Mutex, ExcludesManyThreads) {
    mutex m;
    std::uint64_t sum = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 20000; ++i) {
                const lock_guard guard(m);
                ++sum;
            }
        });
    }
    for (std::thread& t : threads) {
        t.join();
    }
    EXPECT_EQ(sum, 80000U);
}

}  // namespace
}  // namespace ndarena::platform
