#include "segment/fixture.hpp"

#include "support/anonymous.hpp"
#include "support/build.hpp"

#include <atomic>
#include <chrono>
#include <random>
#include <set>
#include <thread>

namespace ndarena::segment {
namespace {

// Decides by a set who lives.
class told final : public slot_authority {
public:
    bool is_alive(std::uint32_t slot) const noexcept override { return dead.count(slot) == 0; }
    std::set<std::uint32_t> dead;
};

struct SlotLock : ::testing::Test {
    std::atomic<std::uint32_t> word{0};
    told who;
    slot_lock lock{&word, &who};
    std::uint32_t mine = slot_lock::make_word(1, 7);
    std::uint32_t other = slot_lock::make_word(2, 9);
};

TEST_F(SlotLock, TheWordNamesTheSlot) {
    for (const std::uint32_t slot : {0U, 1U, 63U, max_slots - 1}) {
        for (const std::uint32_t incarnation : {0U, 1U, 0x7FFFFU, 0xFFFFFFFFU}) {
            const std::uint32_t w = slot_lock::make_word(slot, incarnation);
            EXPECT_NE(w, 0U);
            EXPECT_EQ(slot_lock::slot_of(w), slot);
            EXPECT_EQ(slot_lock::slot_of(w | 1U << 31), slot);
            EXPECT_EQ(w >> 31, 0U) << "the waiters bit is clear";
        }
    }
    EXPECT_NE(slot_lock::make_word(3, 1), slot_lock::make_word(3, 2));
}

TEST_F(SlotLock, IsTakenAndGivenBack) {
    EXPECT_EQ(lock.lock(mine), lock_outcome::acquired);
    EXPECT_EQ(word.load(), mine);
    lock.unlock();
    EXPECT_EQ(word.load(), 0U);
}

TEST_F(SlotLock, GivesUpOnALivingHolder) {
    word = other;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(lock.lock(mine, 50), lock_outcome::timed_out);
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_GE(took, std::chrono::milliseconds(40));
    EXPECT_LT(took, std::chrono::seconds(5));
    EXPECT_EQ(slot_lock::slot_of(word.load()), 2U) << "still the other's";
    lock.unlock();
    EXPECT_EQ(lock.lock(mine, 50), lock_outcome::acquired);
}

TEST_F(SlotLock, IsInheritedFromADeadHolder) {
    word = other;
    who.dead.insert(2);
    EXPECT_EQ(lock.lock(mine), lock_outcome::inherited);
    EXPECT_EQ(slot_lock::slot_of(word.load()), 1U);
    lock.unlock();
    EXPECT_EQ(word.load(), 0U);
}

TEST_F(SlotLock, GarbageInTheWordIsADeadHolder) {
    for (const std::uint32_t garbage : {0xFFFFFFFFU, 0x80000000U, 0x00001000U}) {
        word = garbage;
        who.dead.insert(slot_lock::slot_of(garbage));
        EXPECT_EQ(lock.lock(mine, 1000), lock_outcome::inherited);
        lock.unlock();
    }
}

TEST_F(SlotLock, AClaimerTakesOverWhatItsSlotHeld) {
    EXPECT_FALSE(lock.take_over_own(1, mine)) << "nobody holds it";
    word = other;
    EXPECT_FALSE(lock.take_over_own(1, mine));
    EXPECT_EQ(word.load(), other);
    word = slot_lock::make_word(1, 6) | 1U << 31;  // a former owner of slot 1
    EXPECT_TRUE(lock.take_over_own(1, mine));
    EXPECT_EQ(word.load() & ~(1U << 31), mine);
    lock.unlock();
    EXPECT_EQ(word.load(), 0U);
}

TEST_F(SlotLock, WakesAWaiter) {
    ASSERT_EQ(lock.lock(mine), lock_outcome::acquired);
    std::thread waiter([&] {
        slot_lock same(&word, &who);
        EXPECT_EQ(same.lock(mine), lock_outcome::acquired) << "threads share the slot";
        same.unlock();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    lock.unlock();
    waiter.join();
    EXPECT_EQ(word.load(), 0U);
}

// What the processes below share.
struct scoreboard {
    std::uint64_t first;   // plain numbers: only the lock protects them
    std::uint64_t second;  // behind `first` only within a critical section
    std::atomic<std::uint64_t> entered;
    std::atomic<std::uint64_t> lost;    // sections that ended in a death
    std::atomic<std::uint32_t> inside;  // who is in
    std::atomic<std::uint64_t> overlaps;
};

class SlotLockProcesses : public SegmentTest {
protected:
    void SetUp() override {
        owner_ = open(file(path_, open_mode::exclusive, 4 * mebibyte));
        ASSERT_NE(owner_, nullptr);
        pretend_used(*owner_);
    }
    static void enter(segment& seg, slot_lock& lock, scoreboard& board, bool die) {
        const auto outcome = lock.lock(seg.owner_word());
        ASSERT_NE(outcome, lock_outcome::timed_out);
        if (outcome == lock_outcome::inherited) {
            if (board.first != board.second) {
                board.first = board.second;  // roll the dead one's half step back
                board.lost.fetch_add(1);
            }
            board.inside.store(0);
        }
        std::uint32_t nobody = 0;
        if (!board.inside.compare_exchange_strong(nobody, seg.slot() + 1)) {
            board.overlaps.fetch_add(1);
        }
        board.entered.fetch_add(1);
        board.first += 1;
        if (die) {
            ::kill(::getpid(), SIGKILL);
        }
        board.second += 1;
        board.inside.store(0);
        lock.unlock();
    }
    // A process that opens the segment and enters `rounds` times, dying in the
    // last one if asked to.
    test::child worker(scoreboard& board, int rounds, bool dies) {
        return test::child([&, rounds, dies] {
            owner_->finish_opening();
            auto seg = open(file(path_, open_mode::read_write));
            seg->slot_at(seg->slot()).state.store(1);
            slot_lock lock(&seg->control().heap_lock, seg.get());
            if (lock.take_over_own(seg->slot(), seg->owner_word())) {
                board.first = board.second;
                board.inside.store(0);
                board.lost.fetch_add(1);
                lock.unlock();
            }
            seg->finish_opening();
            for (int i = 0; i < rounds; ++i) {
                enter(*seg, lock, board, dies && i + 1 == rounds);
            }
            seg->leave_slot();
        });
    }
    test::anonymous_memory memory_{4096, true};
    scoreboard& board_ = *new (memory_.data()) scoreboard{};
    std::unique_ptr<segment> owner_;
};

TEST_F(SlotLockProcesses, NoIncrementIsLost) {
    constexpr int rounds = test::under_sanitizer ? 20000 : 200000;
    std::vector<test::child> workers;
    for (int i = 0; i < 4; ++i) {
        workers.push_back(worker(board_, rounds, false));
    }
    for (auto& w : workers) {
        EXPECT_EQ(w.wait(), 0);
    }
    EXPECT_EQ(board_.first, 4U * rounds);
    EXPECT_EQ(board_.second, 4U * rounds);
    EXPECT_EQ(board_.overlaps.load(), 0U);
}

TEST_F(SlotLockProcesses, DeathsInTheSectionBlockNobody) {
    constexpr int generations = 40;
    for (int g = 0; g < generations; ++g) {
        std::vector<test::child> workers;
        for (int i = 0; i < 3; ++i) {
            workers.push_back(worker(board_, 50 + 20 * i, i != g % 3));
        }
        for (auto& w : workers) {
            const int status = w.wait();
            EXPECT_TRUE(status == 0 || WIFSIGNALED(status)) << status;
        }
    }
    slot_lock lock(&owner_->control().heap_lock, owner_.get());
    enter(*owner_, lock, board_, false);
    EXPECT_EQ(board_.first, board_.second);
    EXPECT_EQ(board_.overlaps.load(), 0U);
    EXPECT_EQ(board_.entered.load(), board_.second + board_.lost.load());
    EXPECT_EQ(board_.lost.load(), 2U * generations);
}

TEST_F(SlotLockProcesses, RandomDeathsBlockNobody) {
    std::mt19937 random(7);
    std::vector<test::child> workers;
    for (int i = 0; i < 3; ++i) {
        workers.push_back(worker(board_, 1 << 30, false));
    }
    const int kills = test::under_sanitizer ? 20 : 60;
    for (int i = 0; i < kills; ++i) {
        ::usleep(static_cast<useconds_t>(random() % 5000));
        auto& victim = workers[random() % workers.size()];
        victim.kill();
        victim = worker(board_, 1 << 30, false);
    }
    for (auto& w : workers) {
        w.kill();
    }
    slot_lock lock(&owner_->control().heap_lock, owner_.get());
    const auto outcome = lock.lock(owner_->owner_word(), 5000);
    ASSERT_NE(outcome, lock_outcome::timed_out);
    lock.unlock();
    EXPECT_EQ(board_.overlaps.load(), 0U);
    EXPECT_GT(board_.second, 0U);
    EXPECT_LE(board_.first - board_.second, 1U);
}

TEST_F(SlotLockProcesses, AStoppedHolderIsWaitedForUntilTheBound) {
    test::gate held;
    test::gate never;
    test::child holder([&] {
        auto seg = open(file(path_, open_mode::read_write));
        slot_lock lock(&seg->control().heap_lock, seg.get());
        EXPECT_EQ(lock.lock(seg->owner_word()), lock_outcome::acquired);
        held.post();
        never.wait();
    });
    ASSERT_TRUE(held.wait());
    ::kill(holder.pid(), SIGSTOP);
    slot_lock lock(&owner_->control().heap_lock, owner_.get());
    EXPECT_EQ(lock.lock(owner_->owner_word(), 60), lock_outcome::timed_out);
    holder.kill();
    EXPECT_EQ(lock.lock(owner_->owner_word(), 5000), lock_outcome::inherited);
    lock.unlock();
}

}  // namespace
}  // namespace ndarena::segment
