#include "platform/platform.hpp"

#include "support/places.hpp"
#include "support/process.hpp"

#include <thread>
#include <vector>

namespace ndarena::platform {
namespace {

TEST(Mutex, ExcludesThreads) {
    constexpr int threads = 4;
    constexpr int rounds = 20000;
    mutex m;
    std::uint64_t counter = 0;
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
        workers.emplace_back([&] {
            for (int i = 0; i < rounds; ++i) {
                const lock_guard guard(m);
                ++counter;
            }
        });
    }
    for (auto& w : workers) {
        w.join();
    }
    EXPECT_EQ(counter, std::uint64_t{threads} * rounds);
}

TEST(Mutex, WakesAWaiter) {
    mutex m;
    bool passed = false;
    m.lock();
    std::thread waiter([&] {
        const lock_guard guard(m);
        passed = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(passed);
    m.unlock();
    waiter.join();
    EXPECT_TRUE(passed);
}

TEST(Mutex, CanBeSetFree) {
    mutex m;
    m.lock();
    m.reset();
    const lock_guard guard(m);
}

TEST(Futex, WaitsNoLongerThanAsked) {
    std::atomic<std::uint32_t> word{1};
    const std::uint64_t start = monotonic_milliseconds();
    futex_wait(&word, 1, 30);
    EXPECT_GE(monotonic_milliseconds() - start, 20U);
    futex_wait(&word, 2, 60000);  // another value: returns at once
    EXPECT_LT(monotonic_milliseconds() - start, 30000U);
}

TEST(Process, IsKnownWhileItLives) {
    EXPECT_EQ(process_id(), static_cast<std::uint32_t>(::getpid()));
    EXPECT_TRUE(process_exists(process_id()));
    test::gate never;
    test::child other([&] { never.wait(); });
    const auto pid = static_cast<std::uint32_t>(other.pid());
    EXPECT_TRUE(process_exists(pid));
    other.kill();
    EXPECT_FALSE(process_exists(pid));
}

TEST(Process, KnowsItsMemoryLimit) {
    EXPECT_GT(memory_limit(), std::uint64_t{1} << 20);
    EXPECT_LT(memory_limit(), std::uint64_t{1} << 60);
    EXPECT_GT(unix_time(), 1500000000U);
}

TEST(ForkGuard, IsBrokenInEveryKindOfChild) {
    arm_fork_guard();
    EXPECT_TRUE(fork_guard_intact());
    EXPECT_CHILD_OK([] {
        EXPECT_FALSE(fork_guard_intact());
        arm_fork_guard();
        EXPECT_TRUE(fork_guard_intact());
    });
    EXPECT_EQ(test::in_raw_child([] { EXPECT_FALSE(fork_guard_intact()); }), 0);
    EXPECT_TRUE(fork_guard_intact());
}

TEST(Instance, IsTheSameForOneFileOnly) {
    const test::temp_dir dir;
    test::write_file(dir / "a", "x");
    test::copy_file(dir / "a", dir / "b");
    const auto a = open_file(dir / "a", false, false);
    const auto again = open_file(dir / "a", true, false);
    const auto b = open_file(dir / "b", false, false);
    ASSERT_TRUE(a && again && b);
    const instance_id first = instance_of(a->get());
    // Kernels before 6.8 do not tell mounts apart: then nothing is certain.
    EXPECT_EQ(instance_of(again->get()).is_certainly(first), first.mount != 0);
    EXPECT_FALSE(instance_of(b->get()).is_certainly(first));
    instance_id known = first;
    known.mount = 1;
    EXPECT_TRUE(known.is_certainly(known));
    instance_id other = known;
    other.boot[3] ^= 1U;
    EXPECT_FALSE(known.is_certainly(other));
    other = known;
    other.mount = 2;
    EXPECT_FALSE(known.is_certainly(other));
    other = known;
    other.generation += 1;
    EXPECT_FALSE(known.is_certainly(other));
    known.mount = 0;
    EXPECT_FALSE(known.is_certainly(known));
    EXPECT_NE(instance_of(a->get()).boot, (std::array<std::uint8_t, 16>{}));
}

}  // namespace
}  // namespace ndarena::platform
