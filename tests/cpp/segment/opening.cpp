#include "segment/fixture.hpp"

#include "support/anonymous.hpp"

#include <cstring>
#include <filesystem>

#include <sys/stat.h>

namespace ndarena::segment {
namespace {

TEST_F(SegmentTest, ModesAreH5pys) {
    EXPECT_EQ(refused(file(path_, open_mode::read)), errc::not_found);
    EXPECT_EQ(refused(file(path_, open_mode::read_write)), errc::not_found);
    const auto first = open(file(path_, open_mode::append, 4 * mebibyte));
    EXPECT_TRUE(first->must_reset());
    EXPECT_TRUE(first->is_pristine());
    pretend_used(*first);
    const auto late = open(file(path_, open_mode::exclusive));
    const auto published = late->publish();
    ASSERT_FALSE(published);
    EXPECT_EQ(published.err().code, errc::exists);
    EXPECT_EQ(open(file(path_, open_mode::append))->header().uuid, first->header().uuid);
    const auto reader = open(file(path_, open_mode::read));
    EXPECT_FALSE(reader->writable());
    EXPECT_FALSE(reader->must_reset());
    EXPECT_EQ(reader->count_live_slots(), 1U);
}

TEST_F(SegmentTest, CreateReplacesAndHoldersKeepTheOldFile) {
    const auto old = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*old);
    std::memcpy(old->base() + old->geo().data_offset(), "old", 4);
    const auto fresh = open(file(path_, open_mode::create, 4 * mebibyte));
    pretend_used(*fresh);
    EXPECT_NE(fresh->header().uuid, old->header().uuid);
    EXPECT_NE(fresh->id(), old->id());
    EXPECT_STREQ(reinterpret_cast<char*>(old->base() + old->geo().data_offset()), "old");
    EXPECT_FALSE(old->unlink()) << "the name belongs to the new file";
    EXPECT_TRUE(fresh->unlink());
    EXPECT_EQ(refused(file(path_, open_mode::read)), errc::not_found);
}

TEST_F(SegmentTest, FollowsLinksToFiles) {
    make_used_file();
    ASSERT_EQ(::symlink("arena", (dir_ / "link").c_str()), 0);
    EXPECT_EQ(open(file(dir_ / "link", open_mode::read_write))->path(), dir_ / "link");
}

TEST_F(SegmentTest, PermissionsAreTheCreators) {
    auto options = file(path_, open_mode::exclusive, 4 * mebibyte);
    options.perm = 0640;
    pretend_used(*open(options));
    struct stat st {};
    ASSERT_EQ(::stat(path_.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777U, 0640U);
}

TEST_F(SegmentTest, RefusesImpossibleOptions) {
    auto options = file(path_, open_mode::append, 4 * mebibyte);
    options.alignment = 48;
    EXPECT_EQ(refused(options), errc::invalid);
    options.alignment = 4 * mebibyte;
    EXPECT_EQ(refused(options), errc::invalid);
    EXPECT_EQ(refused(file(path_, open_mode::append, 4096)), errc::invalid);
    EXPECT_EQ(refused(file(path_, open_mode::append, max_capacity + 1)), errc::invalid);
    EXPECT_EQ(refused(file(dir_.path(), open_mode::read)), errc::format);
    auto shared = file("a/b", open_mode::append, 4 * mebibyte);
    shared.kind = segment_kind::shared;
    EXPECT_EQ(refused(shared), errc::invalid);
    shared.path.clear();
    EXPECT_EQ(refused(shared), errc::invalid);
    EXPECT_EQ(refused(file(dir_ / "nowhere/arena", open_mode::append)), errc::not_found);
    EXPECT_EQ(::access(path_.c_str(), F_OK), -1) << "nothing was made";
}

TEST_F(SegmentTest, AlignmentOfAnExistingArenaStays) {
    make_used_file();
    auto options = file(path_, open_mode::read_write);
    options.alignment = 4096;
    EXPECT_EQ(refused(options), errc::invalid);
    options.alignment = 64;
    EXPECT_NE(open(options), nullptr);
}

TEST_F(SegmentTest, EveryDamagedHeaderByteIsAnError) {
    make_used_file();
    std::string header(format_page, '\0');
    std::ifstream(path_, std::ios::binary).read(header.data(), format_page);
    for (std::size_t i = 0; i < format_page; ++i) {
        const char damaged = static_cast<char>(header[i] ^ 0x55);
        test::poke(path_, i, &damaged, 1);
        const auto opened =
            segment::open(file(path_, i % 2 == 0 ? open_mode::read_write : open_mode::read));
        ASSERT_FALSE(opened) << "byte " << i;
        EXPECT_TRUE(opened.err().code == errc::format || opened.err().code == errc::corruption);
        test::poke(path_, i, &header[i], 1);
    }
    EXPECT_NE(open(file(path_, open_mode::read_write)), nullptr);
}

TEST_F(SegmentTest, ForeignFilesAreLeftAlone) {
    for (const std::size_t size : {0U, 1U, 4095U, 4096U, 100000U}) {
        test::write_file(path_, std::string(size, 'z'));
        EXPECT_EQ(refused(file(path_, open_mode::append)), errc::format);
        EXPECT_EQ(refused(file(path_, open_mode::read)), errc::format);
        struct stat st {};
        ASSERT_EQ(::stat(path_.c_str(), &st), 0);
        EXPECT_EQ(static_cast<std::size_t>(st.st_size), size);
    }
}

TEST_F(SegmentTest, TruncatedFilesAreAnError) {
    make_used_file();
    struct stat st {};
    ASSERT_EQ(::stat(path_.c_str(), &st), 0);
    for (const off_t cut : {off_t{1}, off_t{4096}, st.st_size / 2, st.st_size - 4096}) {
        const std::string copy = dir_ / "cut";
        test::copy_file(path_, copy);
        ASSERT_EQ(::truncate(copy.c_str(), st.st_size - cut), 0);
        EXPECT_EQ(refused(file(copy, open_mode::read_write)), errc::corruption);
        EXPECT_EQ(refused(file(copy, open_mode::read)), errc::corruption);
    }
    ASSERT_EQ(::truncate(path_.c_str(), 4000), 0);
    EXPECT_EQ(refused(file(path_, open_mode::read_write)), errc::format);
}

TEST_F(SegmentTest, TruncationBelowTheWatermarkIsAnError) {
    {
        auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
        pretend_used(*seg);
        const std::uint64_t end = seg->control().watermark;
        ASSERT_EQ(seg->extend(end, end + 65536), 0);
        seg->control().watermark = end + 65536;
        seg->leave_slot();
        ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(end)), 0);
    }
    if (!state_is_lasting()) {
        GTEST_SKIP() << "this kernel has no unique mount ids";
    }
    const auto opened = segment::open(file(path_, open_mode::read_write));
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.err().code, errc::corruption);
    EXPECT_NE(opened.err().message.find("truncated"), std::string::npos);
}

TEST_F(SegmentTest, ImpossibleControlNumbersAreAnError) {
    make_used_file();
    if (!state_is_lasting()) {
        GTEST_SKIP() << "this kernel has no unique mount ids";
    }
    const auto damage = [&](auto&& change) {
        (void)::unlink(path_.c_str());
        make_used_file();
        {
            auto seg = open(file(path_, open_mode::read_write));
            change(seg->control());
        }
        EXPECT_EQ(refused(file(path_, open_mode::read_write)), errc::corruption);
        EXPECT_EQ(refused(file(path_, open_mode::read)), errc::corruption);
    };
    damage([](control_page& c) { c.capacity = 0; });
    damage([](control_page& c) { c.capacity = ~std::uint64_t{0}; });
    damage([](control_page& c) { c.capacity += 1; });
    damage([](control_page& c) { c.watermark = 0; });
    damage([](control_page& c) { c.watermark += 1; });
    damage([](control_page& c) { c.watermark = c.capacity + 4096; });
    damage([](control_page& c) { c.chunk_count = 0; });
    damage([](control_page& c) { c.chunk_count = nil; });
    damage([](control_page& c) { c.record_bump = nil; });
}

// No death leaves more entries than there is room for.
TEST_F(SegmentTest, AnImpossibleUndoLogIsAnError) {
    make_used_file();
    if (!state_is_lasting()) {
        GTEST_SKIP() << "this kernel has no unique mount ids";
    }
    for (const std::uint64_t count : {std::uint64_t{undo_entry_count}, std::uint64_t{0},
                                      std::uint64_t{undo_entry_count} + 1, ~std::uint64_t{0}}) {
        test::poke(path_, geometry().undo_offset(), &count, sizeof count);
        for (const open_mode mode : {open_mode::read, open_mode::read_write}) {
            const auto opened = segment::open(file(path_, mode));
            ASSERT_EQ(bool(opened), count <= undo_entry_count);
            if (!opened) {
                EXPECT_EQ(opened.err().code, errc::corruption);
                EXPECT_NE(opened.err().message.find("undo log"), std::string::npos);
            }
        }
    }
}

TEST_F(SegmentTest, VolatileStateIsTrustedOnlyWhereItWasWritten) {
    make_used_file();
    {
        const auto same = open(file(path_, open_mode::read_write));
        EXPECT_TRUE(same->was_deserted());
        EXPECT_EQ(same->must_reset(), !state_is_lasting());
    }
    test::copy_file(path_, dir_ / "copy");
    const auto copy = open(file(dir_ / "copy", open_mode::read_write));
    EXPECT_TRUE(copy->must_reset()) << "another inode";
    EXPECT_FALSE(copy->is_pristine());
    {
        const auto seg = open(file(path_, open_mode::read_write));
        seg->control().boot[0] ^= 1U;
    }
    EXPECT_TRUE(open(file(path_, open_mode::read))->must_reset()) << "another boot";
}

TEST_F(SegmentTest, RootsKeepTheCapacity) {
    make_used_file();
    {
        const auto seg = open(file(path_, open_mode::read_write));
        EXPECT_EQ(current_root(seg->base(), seg->header()), nullptr);
        for (const std::uint64_t capacity : {5 * mebibyte, 6 * mebibyte, 7 * mebibyte}) {
            seg->write_root({0, 0, capacity, 0});
            const root_page* root = current_root(seg->base(), seg->header());
            ASSERT_NE(root, nullptr);
            EXPECT_EQ(root->capacity, capacity);
        }
        seg->control().boot[0] ^= 1U;
    }
    {
        const auto later = open(file(path_, open_mode::read_write));
        EXPECT_TRUE(later->must_reset());
        EXPECT_EQ(later->initial_capacity(), 7 * mebibyte);
        // One that was torn gives way to the one before.
        const root_page* root = current_root(later->base(), later->header());
        EXPECT_EQ(root->sequence, 3U);
        const auto at = reinterpret_cast<const std::byte*>(root) - later->base();
        later->base()[static_cast<std::size_t>(at) + 100] ^= std::byte{1};
    }
    EXPECT_EQ(open(file(path_, open_mode::read_write))->initial_capacity(), 6 * mebibyte);
}

TEST_F(SegmentTest, ASegmentAppearsWhole) {
    {
        const auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
        EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "not before it is published";
    }
    EXPECT_NE(::access(path_.c_str(), F_OK), 0);
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path())) << "nothing is left behind";
}

TEST_F(SegmentTest, StateOfALivingArenaIsNeverReset) {
    const auto first = open(file(path_, open_mode::exclusive, 4 * mebibyte));
    pretend_used(*first);
    first->control().boot[0] ^= 1U;
    const auto second = open(file(path_, open_mode::read_write));
    EXPECT_FALSE(second->was_deserted());
    EXPECT_FALSE(second->must_reset());
    first->control().boot[0] ^= 1U;
}

TEST_F(SegmentTest, BuffersAreFormattedOnlyIfZero) {
    const test::anonymous_memory memory(4 * mebibyte);
    segment_options options;
    options.kind = segment_kind::buffer;
    options.buffer = memory.data();
    options.buffer_size = memory.size();
    memory.data()[3 * mebibyte] = std::byte{1};
    EXPECT_EQ(refused(options), errc::format);
    EXPECT_EQ(memory.data()[3 * mebibyte], std::byte{1});
    EXPECT_EQ(memory.data()[0], std::byte{0});
    options.format_buffer = true;
    EXPECT_FALSE(open(options)->is_pristine());
    memory.data()[3 * mebibyte] = std::byte{0};
    std::memset(memory.data(), 0, mebibyte);
    options.format_buffer = false;
    const auto seg = open(options);
    EXPECT_TRUE(seg->is_solo());
    EXPECT_TRUE(seg->is_pristine());
    EXPECT_EQ(seg->pages(), backing::private_memory);
    options.buffer_size = 8192;
    EXPECT_EQ(refused(options), errc::invalid);
}

TEST_F(SegmentTest, ABufferOverAFileHasTheFilesSlots) {
    test::write_file(path_, "");
    ASSERT_EQ(::truncate(path_.c_str(), 8 * mebibyte), 0);
    auto fd = platform::open_file(path_, true, false);
    ASSERT_TRUE(fd);
    auto mapped = platform::mapped_region::map_file(fd->get(), 8 * mebibyte, 8 * mebibyte,
                                                    8 * mebibyte, true, {});
    ASSERT_TRUE(mapped);
    segment_options options;
    options.kind = segment_kind::buffer;
    options.buffer = mapped->data() + mebibyte;
    options.buffer_size = 4 * mebibyte;
    const auto seg = open(options);
    EXPECT_FALSE(seg->is_solo());
    EXPECT_EQ(seg->pages(), backing::file);
    EXPECT_EQ(seg->count_live_slots(), 1U);
    EXPECT_FALSE(seg->unlink());
}

}  // namespace
}  // namespace ndarena::segment
