// A full file system is a refusal with its space given back, never SIGBUS.
#include "heap/fixture.hpp"

namespace ndarena::heap {
namespace {

class FullDisk : public HeapTest, public ::testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        if (!disk_.reason().empty()) {
            GTEST_SKIP() << disk_.reason();
        }
    }
    std::shared_ptr<heap> make(segment_kind kind) {
        auto o = file(disk_ / "arena", open_mode::exclusive, 1024 * mib);
        if (kind == segment_kind::scratch) {
            o.kind = kind;
            o.path = disk_.path();
        }
        return open(o);
    }
    // Allocates and writes until refused; the blocks.
    static std::vector<void*> use_all(heap& h, std::uint64_t size) {
        std::vector<void*> blocks;
        while (void* p = h.allocate(size, 0, false)) {
            fill(p, size, blocks.size());
            blocks.push_back(p);
        }
        return blocks;
    }
    test::small_filesystem disk_{GetParam(), 64 * mib};
};

TEST_P(FullDisk, IsARefusalThatLeavesTheArenaSound) {
    for (const auto kind : {segment_kind::file, segment_kind::scratch}) {
        const auto h = make(kind);
        ASSERT_NE(h, nullptr);
        const auto blocks = use_all(*h, mib);
        EXPECT_GT(blocks.size(), 30U);
        EXPECT_LT(blocks.size(), 64U);
        EXPECT_NE(h->refusal().find("no room on the device"), std::string::npos) << h->refusal();
        EXPECT_GT(h->stats().oom_count, 0U);
        EXPECT_EQ(findings_of(*h), "");
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            EXPECT_TRUE(holds(blocks[i], mib, i));
            EXPECT_TRUE(h->deallocate(blocks[i]));
        }
        const auto again = use_all(*h, mib);
        EXPECT_GE(again.size() + 1, blocks.size()) << "reusable";
        EXPECT_EQ(findings_of(*h), "");
        if (kind == segment_kind::file) {
            EXPECT_TRUE(h->unlink());
        }
    }
    EXPECT_GT(disk_.free_bytes(), 40 * mib);
}

TEST_P(FullDisk, ARefusalGivesBackWhatItTook) {
    const auto h = make(segment_kind::file);
    void* p = h->allocate(8 * mib, 0, false);
    std::memset(p, 1, 8 * mib);
    const std::uint64_t before = disk_.free_bytes();
    const std::uint64_t extents = 16 * kib;  // what ext4 keeps to describe the file
    EXPECT_EQ(h->allocate(100 * mib, 0, false), nullptr);
    EXPECT_GE(disk_.free_bytes() + extents, before);
    EXPECT_EQ(h->reallocate(p, 100 * mib), nullptr);
    EXPECT_GE(disk_.free_bytes() + extents, before);
    EXPECT_NE(h->allocate(8 * mib, 0, false), nullptr);
    EXPECT_EQ(findings_of(*h), "");
}

// What trim has given back, somebody else has taken.
TEST_P(FullDisk, PunchedPagesMayNotComeBack) {
    const auto h = make(segment_kind::file);
    std::vector<void*> blocks;
    for (std::uint64_t i = 0; i < 16; ++i) {
        blocks.push_back(h->allocate(2 * mib, 0, false));
        fill(blocks.back(), 2 * mib, i);
    }
    for (std::size_t i = 0; i < blocks.size(); i += 2) {
        h->deallocate(blocks[i]);
    }
    ASSERT_GT(h->trim(), 15 * mib);
    const std::string foreign = disk_.fill();
    EXPECT_EQ(h->allocate(2 * mib, 0, true), nullptr);
    EXPECT_EQ(h->allocate(16 * mib, 0, true), nullptr);
    EXPECT_NE(h->refusal(), "");
    EXPECT_EQ(findings_of(*h), "");
    for (std::size_t i = 1; i < blocks.size(); i += 2) {
        EXPECT_TRUE(holds(blocks[i], 2 * mib, i));
    }
    const std::uint64_t full = disk_.free_bytes();
    EXPECT_EQ(h->allocate(2 * mib, 0, true), nullptr);
    EXPECT_EQ(disk_.free_bytes(), full) << "nothing kept by the attempt";

    ASSERT_EQ(::unlink(foreign.c_str()), 0);
    for (std::size_t i = 0; i < blocks.size(); i += 2) {
        blocks[i] = h->allocate(2 * mib, 0, true);
        ASSERT_NE(blocks[i], nullptr) << h->refusal();
        EXPECT_TRUE(is_zero(blocks[i], 2 * mib));
        fill(blocks[i], 2 * mib, i);
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_TRUE(holds(blocks[i], 2 * mib, i));
    }
    EXPECT_EQ(findings_of(*h), "");
}

// Growing in place into pages that are gone.
TEST_P(FullDisk, AReallocationIntoPunchedPagesIsRefused) {
    const auto h = make(segment_kind::file);
    void* a = h->allocate(2 * mib, 0, false);
    void* b = h->allocate(8 * mib, 0, false);
    void* wall = h->allocate(64, 0, false);
    fill(a, 2 * mib, 1);
    std::memset(b, 1, 8 * mib);
    std::memset(wall, 1, 64);
    h->deallocate(b);
    ASSERT_GE(h->trim(), 8 * mib);
    const std::string foreign = disk_.fill();
    EXPECT_EQ(h->reallocate(a, 10 * mib), nullptr);
    EXPECT_TRUE(holds(a, 2 * mib, 1));
    EXPECT_EQ(h->size_of(a), 2 * mib);
    EXPECT_EQ(findings_of(*h), "");
    ASSERT_EQ(::unlink(foreign.c_str()), 0);
    EXPECT_EQ(h->reallocate(a, 10 * mib), a);
    EXPECT_TRUE(holds(a, 2 * mib, 1));
    std::memset(a, 2, 10 * mib);
    EXPECT_EQ(findings_of(*h), "");
}

// Warm pages are given up before a request is refused.
TEST_P(FullDisk, WarmPagesAreGivenUpFirst) {
    const auto h = make(segment_kind::file);
    h->set_purge(-1, ~std::uint64_t{0});
    std::vector<void*> blocks;
    for (int i = 0; i < 20; ++i) {
        blocks.push_back(h->allocate(2 * mib, 0, false));
        std::memset(blocks.back(), 1, 2 * mib);
        (void)h->allocate(64, 0, false);
    }
    for (void* p : blocks) {
        h->deallocate(p);
    }
    EXPECT_GE(h->stats().warm_free, 40 * mib);
    void* large = h->allocate(30 * mib, 0, false);  // fits nowhere among the freed
    ASSERT_NE(large, nullptr) << h->refusal();
    std::memset(large, 1, 30 * mib);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_P(FullDisk, NoRoomForANewArena) {
    const std::string foreign = disk_.fill();
    const auto refused = heap::open(file(disk_ / "arena", open_mode::exclusive, 64 * mib));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_NE(::access((disk_ / "arena").c_str(), F_OK), 0) << "no half-made file";
    ASSERT_EQ(::unlink(foreign.c_str()), 0);
    EXPECT_NE(make(segment_kind::file), nullptr);
}

// A buffer over a file of fixed size gets the same promise.
TEST_P(FullDisk, HoldsForBuffersOverFiles) {
    test::write_file(disk_ / "file", "");
    ASSERT_EQ(::truncate((disk_ / "file").c_str(), 256 * mib), 0);
    auto fd = platform::open_file(disk_ / "file", true, false);
    ASSERT_TRUE(fd);
    auto mapped =
        platform::mapped_region::map_file(fd->get(), 256 * mib, 256 * mib, 256 * mib, true, {});
    ASSERT_TRUE(mapped);
    const auto h = open(buffer(mapped->data(), mapped->size()));
    ASSERT_NE(h, nullptr);
    const auto blocks = use_all(*h, mib);
    EXPECT_GT(blocks.size(), 30U);
    EXPECT_LT(blocks.size(), 64U);
    const std::uint64_t before = disk_.free_bytes();
    EXPECT_EQ(h->allocate(100 * mib, 0, false), nullptr);
    EXPECT_GE(disk_.free_bytes() + 16 * kib, before);
    EXPECT_EQ(findings_of(*h), "");
}

INSTANTIATE_TEST_SUITE_P(On, FullDisk,
                         ::testing::Values(test::small_filesystem::tmpfs,
                                           test::small_filesystem::ext4),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace ndarena::heap
