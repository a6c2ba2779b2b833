#include "heap/fixture.hpp"

#include <atomic>
#include <thread>

namespace ndarena::heap {
namespace {

// Random operations with contents; what is left at the end is freed.
void work(heap& h, std::uint64_t seed, int operations, std::atomic<int>& failures) {
    struct block {
        void* p;
        std::uint64_t size;
        std::uint64_t seed;
    };
    std::mt19937_64 random(seed);
    std::vector<block> live;
    for (int i = 0; i < operations; ++i) {
        const std::uint64_t size = 1 + random() % (random() % 8 == 0 ? 200000 : 3000);
        const std::uint64_t what = random() % 10;
        if (what < 5 || live.empty()) {
            const bool zero = random() % 4 == 0;
            void* p = h.allocate(size, 0, zero);
            if (p == nullptr || (zero && !is_zero(p, size))) {
                ++failures;
                continue;
            }
            live.push_back({p, size, random()});
            fill(p, size, live.back().seed);
        } else if (what < 8 || live.size() > 50) {
            std::swap(live[random() % live.size()], live.back());
            const block b = live.back();
            live.pop_back();
            failures += holds(b.p, b.size, b.seed) && h.size_of(b.p) == b.size ? 0 : 1;
            failures += h.deallocate(b.p) ? 0 : 1;
        } else {
            block& b = live[random() % live.size()];
            void* p = h.reallocate(b.p, size);
            failures += p != nullptr && holds(p, std::min(size, b.size), b.seed) ? 0 : 1;
            if (p != nullptr) {
                b = {p, size, random()};
                fill(p, size, b.seed);
            }
        }
    }
    for (const block& b : live) {
        failures += holds(b.p, b.size, b.seed) ? 0 : 1;
        failures += h.deallocate(b.p) ? 0 : 1;
    }
}

TEST_F(HeapTest, ThreadsDoNotDisturbEachOther) {
    const auto h = scratch();
    h->set_purge(1, mib);
    std::atomic<int> failures{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    const int operations = test::under_tsan ? 1500 : test::under_asan ? 3000 : 8000;
    for (std::uint64_t t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] { work(*h, t, operations, failures); });
    }
    // Others look and tidy up meanwhile.
    threads.emplace_back([&] {
        while (!stop) {
            failures += findings_of(*h).empty() ? 0 : 1;
            failures += h->stats().capacity == 256 * mib ? 0 : 1;
            (void)h->blocks();
            (void)h->trim();
            (void)h->refusal();
            (void)heap::find(h->base() + 100000);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    });
    for (std::size_t t = 0; t < 8; ++t) {
        threads[t].join();
    }
    stop = true;
    threads.back().join();
    EXPECT_EQ(failures.load(), 0);
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ThreadsFreeEachOthersBlocks) {
    const auto h = scratch();
    constexpr int rounds = 2000;
    std::vector<std::atomic<void*>> mailbox(16);
    std::atomic<int> failures{0};
    std::thread producer([&] {
        for (int i = 0; i < rounds; ++i) {
            void* p = h->allocate(5000, 0, false);
            fill(p, 5000, 1);
            void* empty = nullptr;
            auto& place = mailbox[static_cast<std::size_t>(i) % mailbox.size()];
            while (!place.compare_exchange_weak(empty, p)) {
                empty = nullptr;
                std::this_thread::yield();
            }
        }
    });
    std::thread consumer([&] {
        for (int i = 0; i < rounds; ++i) {
            auto& place = mailbox[static_cast<std::size_t>(i) % mailbox.size()];
            void* p = nullptr;
            while ((p = place.exchange(nullptr)) == nullptr) {
                std::this_thread::yield();
            }
            failures += holds(p, 5000, 1) && h->deallocate(p) ? 0 : 1;
        }
    });
    producer.join();
    consumer.join();
    EXPECT_EQ(failures.load(), 0);
    EXPECT_EQ(h->live_blocks(), 0U);
}

TEST_F(HeapTest, ThreadsOpenAndCloseTheSameFile) {
    create()->deallocate(nullptr);
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 30; ++i) {
                auto h = heap::open(file(path_, open_mode::read_write));
                if (!h) {
                    ++failures;
                    continue;
                }
                void* p = (*h)->allocate(1000, 0, false);
                fill(p, 1000, t);
                failures += holds(p, 1000, t) && (*h)->deallocate(p) ? 0 : 1;
            }
        });
    }
    for (auto& t : threads) {
        t.join();
    }
    EXPECT_EQ(failures.load(), 0);
    const auto h = attach();
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

}  // namespace
}  // namespace ndarena::heap
