#include "segment/fixture.hpp"

#include "support/build.hpp"

#include <cstring>
#include <vector>

#include <fcntl.h>

namespace ndarena::segment {
namespace {

TEST_F(SegmentTest, EachOpenerHasASlotOfItsOwn) {
    const auto first = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*first);
    const auto second = open(file(path_, open_mode::read_write));
    pretend_used(*second);
    EXPECT_NE(first->slot(), second->slot());
    EXPECT_NE(first->owner_word(), second->owner_word());
    EXPECT_TRUE(first->is_alive(first->slot()));
    EXPECT_TRUE(first->is_alive(second->slot()));
    EXPECT_TRUE(second->is_alive(first->slot()));
    EXPECT_FALSE(first->is_alive(40));
    EXPECT_FALSE(first->is_alive(nil));
    EXPECT_EQ(first->count_live_slots(), 2U);
    second->leave_slot();
    EXPECT_EQ(first->count_live_slots(), 1U);
    EXPECT_FALSE(first->is_alive(second->slot()));
}

TEST_F(SegmentTest, AllSlotsTakenIsAClearError) {
    if (test::under_tsan) {
        GTEST_SKIP() << "ThreadSanitizer leaves no addresses for so many reservations";
    }
    std::vector<std::unique_ptr<segment>> all;
    all.push_back(open(file(path_, open_mode::exclusive, 4 * mebibyte)));
    pretend_used(*all.back());
    const std::uint32_t slots = all.back()->geo().slot_count;
    while (all.size() < slots) {
        all.push_back(open(file(path_, open_mode::read_write)));
        ASSERT_NE(all.back(), nullptr);
        pretend_used(*all.back());
    }
    const auto refused = segment::open(file(path_, open_mode::read_write));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_NE(refused.err().message.find("slots"), std::string::npos);
    EXPECT_NE(open(file(path_, open_mode::read)), nullptr) << "readers need none";

    // One dies without leaving: its slot is taken over, with a new incarnation.
    const std::uint32_t dead = all[17]->slot();
    const std::uint32_t dead_word = all[17]->owner_word();
    all[17].reset();
    EXPECT_FALSE(all[0]->is_alive(dead));
    const auto heir = open(file(path_, open_mode::read_write));
    ASSERT_NE(heir, nullptr);
    EXPECT_EQ(heir->slot(), dead);
    EXPECT_NE(heir->owner_word(), dead_word);
    EXPECT_EQ(slot_lock::slot_of(heir->owner_word()), dead);
}

TEST_F(SegmentTest, UnusedSlotsGoFirst) {
    auto first = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*first);
    auto second = open(file(path_, open_mode::read_write));
    pretend_used(*second);
    const std::uint32_t dead = second->slot();
    second.reset();  // its row may have bits
    const auto third = open(file(path_, open_mode::read_write));
    EXPECT_NE(third->slot(), dead);
}

TEST_F(SegmentTest, ASlotDiesWithItsProcess) {
    const auto first = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*first);
    test::gate ready;
    test::gate never;
    test::child other([&] {
        const auto own = open(file(path_, open_mode::read_write));
        pretend_used(*own);
        EXPECT_EQ(own->count_live_slots(), 2U);
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_EQ(first->count_live_slots(), 2U);
    EXPECT_FALSE(first->hold_dead_slot(1));
    other.kill();
    EXPECT_EQ(first->count_live_slots(), 1U);
    EXPECT_TRUE(first->hold_dead_slot(1));
    first->let_dead_slot_go(1);
}

TEST_F(SegmentTest, AClaimAheadIsAliveBeforeItsProcessIs) {
    const auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*seg);
    seg->prepare_spare();
    auto fd = seg->spare_descriptor();
    ASSERT_TRUE(fd);
    auto claimed = seg->claim_slot(fd.get());
    ASSERT_TRUE(claimed);
    claimed->fd = std::move(fd);
    EXPECT_FALSE(claimed->was_used);
    EXPECT_TRUE(seg->is_alive(claimed->slot));
    const std::uint32_t slot = claimed->slot;
    claimed->fd.reset();
    EXPECT_FALSE(seg->is_alive(slot)) << "no child was made";
}

TEST_F(SegmentTest, TheOpenLockIsHeldUntilRecoveryHasFinished) {
    const auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    EXPECT_TRUE(seg->publish());
    test::gate opened;
    test::child other([&] {
        const auto own = open(file(path_, open_mode::read_write));
        EXPECT_FALSE(own->must_reset()) << "seen before it was whole";
        opened.post();
    });
    ::usleep(30000);
    pretend_used(*seg);  // and lets go
    EXPECT_TRUE(opened.wait());
    EXPECT_EQ(other.wait(), 0);
}

TEST_F(SegmentTest, SeesThatItsDescriptorWasClosed) {
    auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    EXPECT_TRUE(seg->descriptor_intact());
    const int number = seg->fd();
    ::close(number);
    EXPECT_FALSE(seg->descriptor_intact());
    const int other = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(::dup3(other, number, O_CLOEXEC), number);
    EXPECT_FALSE(seg->descriptor_intact());
    ::close(other);
}

TEST_F(SegmentTest, ExtendsAndUndoes) {
    const auto seg = open(file(path_, open_mode::exclusive, 64 * mebibyte));
    ASSERT_TRUE(seg->publish());
    const auto size = [&] { return *platform::file_size(seg->fd(), {}); };
    const std::uint64_t start = size();
    ASSERT_EQ(seg->extend(start, start + mebibyte), 0);
    EXPECT_EQ(size(), start + mebibyte);
    EXPECT_GE(test::disk_bytes(seg->fd()), start + mebibyte);
    std::memset(seg->base() + start, 1, mebibyte);
    const std::uint64_t before = test::disk_bytes(seg->fd());
    ASSERT_EQ(seg->discard_range(start, mebibyte), 0);
    EXPECT_LT(test::disk_bytes(seg->fd()), before);
    EXPECT_EQ(seg->base()[start + 5], std::byte{0});
    ASSERT_EQ(seg->commit_range(start, mebibyte), 0);
    EXPECT_EQ(test::disk_bytes(seg->fd()), before);
    seg->undo_extend(start);
    EXPECT_EQ(size(), start);
    EXPECT_EQ(seg->extend(start, start), 0);
}

}  // namespace
}  // namespace ndarena::segment
