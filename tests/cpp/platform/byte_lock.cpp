#include "platform/platform.hpp"

#include "support/places.hpp"
#include "support/process.hpp"

namespace ndarena::platform {
namespace {

using test::gate;

constexpr std::uint64_t far_away = std::uint64_t{1} << 62;

class ByteLock : public ::testing::Test {
protected:
    void SetUp() override {
        test::write_file(path_, "x");
        auto opened = open_file(path_, true, false);
        ASSERT_TRUE(opened);
        fd_ = std::move(*opened);
    }
    unique_fd another() {
        auto copy = reopen(fd_.get(), true);
        return copy ? std::move(*copy) : unique_fd();
    }
    test::temp_dir dir_;
    std::string path_ = dir_ / "file";
    unique_fd fd_;
};

TEST_F(ByteLock, ExcludesOtherDescriptions) {
    const unique_fd other = another();
    ASSERT_TRUE(other);
    EXPECT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::taken);
    EXPECT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::taken) << "its own, again";
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::busy);
    EXPECT_EQ(try_lock_byte(other.get(), far_away + 1), lock_answer::taken);
    unlock_byte(fd_.get(), far_away);
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::taken);
}

TEST_F(ByteLock, LooksAtRangesOfOthersOnly) {
    const unique_fd other = another();
    ASSERT_EQ(try_lock_byte(fd_.get(), far_away + 5), lock_answer::taken);
    EXPECT_FALSE(is_locked_by_other(fd_.get(), far_away, 10));
    EXPECT_TRUE(is_locked_by_other(other.get(), far_away, 10));
    EXPECT_TRUE(is_locked_by_other(other.get(), far_away + 5, 1));
    EXPECT_FALSE(is_locked_by_other(other.get(), far_away, 5));
    EXPECT_FALSE(is_locked_by_other(other.get(), far_away + 6, 4));
}

TEST_F(ByteLock, SurvivesClosingAnotherDescriptorOfTheFile) {
    const unique_fd other = another();
    ASSERT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::taken);
    another().reset();
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::busy);
}

TEST_F(ByteLock, DiesWithItsProcess) {
    gate held;
    gate never;
    test::child holder([&] {
        const unique_fd own = another();
        EXPECT_EQ(try_lock_byte(own.get(), far_away), lock_answer::taken);
        held.post();
        never.wait();
    });
    ASSERT_TRUE(held.wait());
    EXPECT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::busy);
    EXPECT_TRUE(is_locked_by_other(fd_.get(), far_away, 1));
    holder.kill();
    EXPECT_FALSE(is_locked_by_other(fd_.get(), far_away, 1));
    EXPECT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::taken);
}

// The one case in which a byte outlives its process: why a fork child closes
// the descriptor it inherits before anything else.
TEST_F(ByteLock, IsKeptByAForkChildUntilItClosesTheDescriptor) {
    const unique_fd other = another();
    ASSERT_EQ(try_lock_byte(fd_.get(), far_away), lock_answer::taken);
    gate parent_closed;
    gate seen_busy;
    gate child_closed;
    gate done;
    test::child heir([&] {
        EXPECT_TRUE(parent_closed.wait());
        EXPECT_TRUE(seen_busy.wait());
        fd_.reset();
        child_closed.post();
        EXPECT_TRUE(done.wait());
    });
    fd_.reset();
    parent_closed.post();
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::busy);
    seen_busy.post();
    ASSERT_TRUE(child_closed.wait());
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::taken);
    done.post();
    EXPECT_EQ(heir.wait(), 0);
}

TEST_F(ByteLock, ReadersShare) {
    auto reader = open_file(path_, false, false);
    const unique_fd other = another();
    ASSERT_TRUE(reader && other);
    EXPECT_EQ(try_share_byte(reader->get(), far_away), lock_answer::taken);
    EXPECT_EQ(try_share_byte(fd_.get(), far_away), lock_answer::taken);
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::busy);
    unlock_byte(fd_.get(), far_away);
    reader->reset();
    EXPECT_EQ(try_lock_byte(other.get(), far_away), lock_answer::taken);
    EXPECT_EQ(try_share_byte(fd_.get(), far_away), lock_answer::busy);
}

TEST_F(ByteLock, AFailingCallCountsAsAlive) {
    EXPECT_EQ(try_lock_byte(-1, far_away), lock_answer::failed);
    EXPECT_TRUE(is_locked_by_other(-1, far_away, 1));
}

}  // namespace
}  // namespace ndarena::platform
