#include "platform/platform.hpp"

#include "support/anonymous.hpp"
#include "support/build.hpp"
#include "support/places.hpp"
#include "support/process.hpp"

#include <cstring>

#include <sys/mman.h>
#include <sys/resource.h>

namespace ndarena::platform {
namespace {

using test::anonymous_memory;

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;
constexpr std::uint64_t gibibyte = std::uint64_t{1} << 30;

class Mapping : public ::testing::Test {
protected:
    void SetUp() override {
        auto file = create_nameless(dir_.path(), 0600);
        ASSERT_TRUE(file);
        fd_ = std::move(file->fd);
        ASSERT_EQ(allocate_range(fd_.get(), 0, mebibyte, false), 0);
    }
    mapped_region map(std::uint64_t size) {
        auto mapped = mapped_region::map_file(fd_.get(), size, size, size, true, {});
        EXPECT_TRUE(mapped);
        return mapped ? std::move(*mapped) : mapped_region();
    }
    test::temp_dir dir_;
    unique_fd fd_;
};

TEST_F(Mapping, StartsAtAHugePage) {
    for (const std::uint64_t size : {page_size, 3 * mebibyte, gibibyte}) {
        const mapped_region region = map(size);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.data()) % huge_page_size, 0U);
        EXPECT_EQ(region.size(), size);
    }
}

TEST_F(Mapping, ReachesBeyondTheFileThatThenGrows) {
    const mapped_region region = map(gibibyte);
    ASSERT_EQ(allocate_range(fd_.get(), mebibyte, mebibyte, false), 0);
    region.data()[mebibyte + 5] = std::byte{7};
    unsigned char read = 0;
    ASSERT_EQ(::pread(fd_.get(), &read, 1, mebibyte + 5), 1);
    EXPECT_EQ(read, 7);
}

TEST_F(Mapping, HalvesWhileThereIsNoAddressSpace) {
    if (test::under_sanitizer) {
        GTEST_SKIP() << "sanitizers reserve terabytes of addresses for themselves";
    }
    EXPECT_CHILD_OK([&] {
        struct rlimit limit {
            4 * gibibyte, 4 * gibibyte
        };
        ::setrlimit(RLIMIT_AS, &limit);
        auto mapped =
            mapped_region::map_file(fd_.get(), 64 * gibibyte, 64 * gibibyte, gibibyte, true, {});
        EXPECT_TRUE(mapped);
        EXPECT_LE(mapped->size(), 4 * gibibyte);
        EXPECT_GE(mapped->size(), gibibyte);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapped->data()) % huge_page_size, 0U);
        const auto refused = mapped_region::map_file(fd_.get(), 64 * gibibyte, 64 * gibibyte,
                                                     32 * gibibyte, true, "name");
        EXPECT_FALSE(refused);
        EXPECT_EQ(refused.err().code, errc::no_memory);
        EXPECT_EQ(refused.err().path, "name");
    });
}

TEST_F(Mapping, MovesAndReleases) {
    mapped_region region = map(mebibyte);
    std::byte* where = region.data();
    mapped_region other = std::move(region);
    EXPECT_EQ(other.data(), where);
    other.release();
    EXPECT_EQ(other.data(), nullptr);
    EXPECT_EQ(where[0], std::byte{0}) << "still mapped";
    ::munmap(where, mebibyte);
}

TEST_F(Mapping, APrivateViewKeepsItsWritesToItself) {
    const mapped_region region = map(mebibyte);
    std::memset(region.data(), 1, mebibyte);
    ASSERT_EQ(make_private(region.data() + 8192, 8192, fd_.get(), 8192), 0);
    EXPECT_EQ(region.data()[8192], std::byte{1});
    region.data()[8192] = std::byte{2};
    region.data()[4096] = std::byte{3};
    std::array<unsigned char, 1> read{};
    ASSERT_EQ(::pread(fd_.get(), read.data(), 1, 8192), 1);
    EXPECT_EQ(read[0], 1);
    ASSERT_EQ(::pread(fd_.get(), read.data(), 1, 4096), 1);
    EXPECT_EQ(read[0], 3);
    ASSERT_EQ(make_shared(region.data() + 8192, 8192, fd_.get(), 8192), 0);
    EXPECT_EQ(region.data()[8192], std::byte{1});
}

TEST_F(Mapping, APrivateCopyCarriesTheGivenRanges) {
    const anonymous_memory memory(16 * page_size, true);
    std::memset(memory.data(), 5, memory.size());
    EXPECT_CHILD_OK([&] {
        const byte_range keep[] = {{0, 100}, {3 * page_size, page_size}};
        EXPECT_EQ(make_private_copy(memory.data(), memory.size(), keep, 2, 0), 0);
        EXPECT_EQ(memory.data()[99], std::byte{5});
        EXPECT_EQ(memory.data()[100], std::byte{0});
        EXPECT_EQ(memory.data()[3 * page_size], std::byte{5});
        EXPECT_EQ(memory.data()[4 * page_size], std::byte{0});
        std::memset(memory.data(), 9, memory.size());
    });
    for (std::size_t i = 0; i < memory.size(); ++i) {
        ASSERT_EQ(memory.data()[i], std::byte{5});
    }
}

TEST_F(Mapping, CountsAndDiscardsPages) {
    const anonymous_memory memory(64 * page_size);
    EXPECT_EQ(resident_bytes(memory.data(), memory.size()), 0U);
    memory.data()[0] = memory.data()[5 * page_size] = std::byte{1};
    EXPECT_EQ(resident_bytes(memory.data(), memory.size()), 2 * page_size);
    ASSERT_EQ(discard_private(memory.data(), memory.size()), 0);
    EXPECT_EQ(resident_bytes(memory.data(), memory.size()), 0U);
    EXPECT_EQ(memory.data()[5 * page_size], std::byte{0});
    const int populated = populate_for_write(memory.data() + page_size, page_size);
    if (populated != EINVAL) {  // kernels before 5.14 do not know it
        EXPECT_EQ(populated, 0);
        EXPECT_EQ(resident_bytes(memory.data() + page_size, page_size), page_size);
    }
    EXPECT_EQ(exclude_from_dump(memory.data(), memory.size()), 0);
    EXPECT_NE(discard_private(memory.data() + 1, page_size), 0) << "not at a page";
}

TEST_F(Mapping, RemovesSharedPagesForAll) {
    const anonymous_memory memory(16 * page_size, true);
    std::memset(memory.data(), 5, memory.size());
    EXPECT_CHILD_OK([&] { EXPECT_EQ(remove_shared(memory.data() + page_size, page_size), 0); });
    EXPECT_EQ(memory.data()[page_size - 1], std::byte{5});
    EXPECT_EQ(memory.data()[page_size], std::byte{0});
    EXPECT_EQ(memory.data()[2 * page_size], std::byte{5});
}

TEST(DescribeMapping, TellsSharedFromPrivateMemory) {
    const anonymous_memory shared(8 * page_size, true);
    const anonymous_memory own(8 * page_size, false);
    const auto s = describe_mapping(shared.data(), shared.size());
    EXPECT_TRUE(s.found);
    EXPECT_TRUE(s.shared);
    EXPECT_EQ(s.path.rfind("/dev/zero", 0), 0U);
    const auto p = describe_mapping(own.data() + 100, 4096);
    EXPECT_TRUE(p.found);
    EXPECT_FALSE(p.shared);
    EXPECT_EQ(p.inode, 0U);
}

TEST(DescribeMapping, JoinsWhatAdviceHasSplit) {
    const anonymous_memory memory(8 * page_size);
    ASSERT_EQ(exclude_from_dump(memory.data() + 2 * page_size, page_size), 0);
    EXPECT_TRUE(describe_mapping(memory.data(), memory.size()).found);
}

TEST(DescribeMapping, DoesNotJoinDifferentMappings) {
    const anonymous_memory memory(8 * page_size);
    ::munmap(memory.data() + 4 * page_size, page_size);
    EXPECT_TRUE(describe_mapping(memory.data(), 4 * page_size).found);
    EXPECT_FALSE(describe_mapping(memory.data(), 8 * page_size).found);
    EXPECT_FALSE(describe_mapping(memory.data() + 4 * page_size, 10).found);
    void* p = ::mmap(memory.data() + 4 * page_size, page_size, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ASSERT_NE(p, MAP_FAILED);
    EXPECT_FALSE(describe_mapping(memory.data(), 8 * page_size).found);
}

TEST_F(Mapping, DescribesAFileAtAnOffset) {
    std::byte* p = static_cast<std::byte*>(::mmap(nullptr, 16 * page_size, PROT_READ | PROT_WRITE,
                                                  MAP_SHARED, fd_.get(), 8 * page_size));
    ASSERT_NE(p, MAP_FAILED);
    ASSERT_EQ(::madvise(p + page_size, page_size, MADV_DONTFORK), 0);
    const auto info = describe_mapping(p + 2 * page_size, 4 * page_size);
    const auto id = identify(fd_.get(), {});
    EXPECT_TRUE(info.found);
    EXPECT_TRUE(info.shared);
    EXPECT_EQ(info.file_offset, 10 * page_size);
    EXPECT_EQ(info.inode, id->inode);
    EXPECT_TRUE(describe_mapping(p, 16 * page_size).found) << "split by advice";
    ::munmap(p, 16 * page_size);
}

}  // namespace
}  // namespace ndarena::platform
