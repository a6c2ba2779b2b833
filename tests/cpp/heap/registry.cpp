// One heap per segment and access in a process.
#include "heap/fixture.hpp"

#include <fcntl.h>
#include <sys/mman.h>

namespace ndarena::heap {
namespace {

TEST_F(HeapTest, TheSameFileIsTheSameHeap) {
    const auto h = create();
    EXPECT_EQ(attach(), h);
    EXPECT_EQ(open(file(path_, open_mode::append)), h);
    ASSERT_EQ(::symlink("arena", (dir_ / "link").c_str()), 0);
    EXPECT_EQ(open(file(dir_ / "link", open_mode::read_write)), h);
    EXPECT_EQ(h->stats().processes, 1U);
    const auto reader = open(file(path_, open_mode::read));
    EXPECT_NE(reader, h);
    EXPECT_EQ(open(file(path_, open_mode::read)), reader);
    auto other = file(path_, open_mode::read_write);
    other.alignment = 4096;
    const auto refused = heap::open(other);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::invalid);
}

TEST_F(HeapTest, AReplacedFileIsAnotherHeap) {
    const auto old = create();
    void* p = old->allocate(1000, 0, false);
    fill(p, 1000, 1);
    const auto fresh = open(file(path_, open_mode::create, 64 * mib));
    ASSERT_NE(fresh, nullptr);
    EXPECT_NE(fresh, old);
    EXPECT_EQ(fresh->allocated_bytes(), 0U);
    EXPECT_TRUE(holds(p, 1000, 1));
    EXPECT_FALSE(fresh->deallocate(p));
    EXPECT_TRUE(old->deallocate(p));
    EXPECT_EQ(attach(), fresh);
}

TEST_F(HeapTest, AddressesFindTheirHeap) {
    const auto a = scratch();
    const auto b = scratch();
    void* in_a = a->allocate(100, 0, false);
    void* in_b = b->allocate(100, 0, false);
    EXPECT_EQ(heap::find(in_a), a);
    EXPECT_EQ(heap::find(in_b), b);
    int elsewhere = 0;
    EXPECT_EQ(heap::find(&elsewhere), nullptr);
}

TEST_F(HeapTest, ABufferIsOneHeap) {
    const test::anonymous_memory memory(16 * mib);
    const auto h = open(buffer(memory.data(), memory.size()));
    EXPECT_EQ(open(buffer(memory.data(), memory.size())), h);
    auto anew = buffer(memory.data(), memory.size());
    anew.format_buffer = true;
    EXPECT_FALSE(heap::open(anew)) << "not under live blocks";
    EXPECT_EQ(heap::find(memory.data() + 5 * mib), h);
}

TEST_F(HeapTest, OverlappingBuffersAreRefused) {
    const test::anonymous_memory memory(16 * mib);
    auto h = open(buffer(memory.data() + 4 * mib, 8 * mib));
    ASSERT_NE(h, nullptr);
    for (const std::uint64_t at : {std::uint64_t{0}, 3 * mib, 5 * mib, 11 * mib}) {
        const auto refused = heap::open(buffer(memory.data() + at, 5 * mib));
        ASSERT_FALSE(refused) << at;
        EXPECT_EQ(refused.err().code, errc::invalid);
    }
    const auto left = open(buffer(memory.data(), 4 * mib));
    const auto right = open(buffer(memory.data() + 12 * mib, 4 * mib));
    EXPECT_NE(left, right);
    const auto inside = heap::open(buffer(h->base() + mib, 2 * mib));
    EXPECT_FALSE(inside);
    h.reset();
    EXPECT_TRUE(heap::open(buffer(memory.data() + 4 * mib, 8 * mib)));
}

TEST_F(HeapTest, ABufferCanBeLeftAndFoundAgain) {
    const test::anonymous_memory memory(16 * mib);
    {
        const auto h = open(buffer(memory.data(), memory.size()));
        void* p = h->allocate(mib, 0, false);
        std::memset(p, 7, mib);
    }
    const auto h = open(buffer(memory.data(), memory.size()));
    EXPECT_EQ(h->allocated_bytes(), 0U) << "freed with its owner";
    EXPECT_TRUE(is_zero(h->allocate(mib, 0, true), mib));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, BlocksGoWithTheLastOwnerOfTheHeap) {
    {
        const auto h = create();
        (void)h->allocate(5 * mib, 0, false);
        EXPECT_GT(h->allocated_bytes(), 0U);
    }
    const auto h = attach();
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(h->reclaim(), 0U) << "nothing was left to reclaim";
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, SharedSegmentsHaveNames) {
    segment_options o;
    o.kind = segment_kind::shared;
    o.path = "ndarena-test-" + platform::random_name();
    o.mode = open_mode::exclusive;
    o.capacity = 16 * mib;
    const auto h = open(o);
    ASSERT_NE(h, nullptr);
    EXPECT_EQ(heap::open(o).err().code, errc::exists);
    o.mode = open_mode::append;
    EXPECT_EQ(open(o), h);
    EXPECT_CHILD_OK([&] {
        auto other = heap::open(o);
        EXPECT_TRUE(other);
    });
    EXPECT_TRUE(h->unlink());
    EXPECT_EQ(h->unlink().err().code, errc::not_found);
    o.mode = open_mode::read_write;
    EXPECT_EQ(heap::open(o).err().code, errc::not_found);
    EXPECT_NE(h->allocate(mib, 0, false), nullptr) << "lives on until its last user is gone";
}

TEST_F(HeapTest, ACopiedFileStartsAnew) {
    const auto h = create();
    void* p = h->allocate(mib, 0, false);
    std::memset(p, 7, mib);
    test::copy_file(path_, dir_ / "copy");
    const auto copy = open(file(dir_ / "copy", open_mode::read_write));
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(copy->allocated_bytes(), 0U) << "what was in it was a process's scratch";
    EXPECT_EQ(findings_of(*copy), "");
    EXPECT_EQ(copy->capacity(), h->capacity());
    void* q = copy->allocate(2 * mib, 0, true);
    ASSERT_NE(q, nullptr) << copy->refusal();
    EXPECT_TRUE(is_zero(q, 2 * mib));
    EXPECT_EQ(h->allocated_bytes(), mib);
}

// What was closed behind our back is noticed, said, and never written to.
TEST_F(HeapTest, AForeignCloseOfTheDescriptorIsSurvived) {
    const auto h = create();
    void* p = h->allocate(mib, 0, false);
    fill(p, mib, 1);
    const int number = h->seg().fd();
    ::close(number);
    const int foreign = ::open((dir_ / "foreign").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::dup3(foreign, number, O_CLOEXEC), number);
    ::close(foreign);
    EXPECT_EQ(h->allocate(128 * mib, 0, false), nullptr);
    EXPECT_NE(h->refusal().find("descriptor"), std::string::npos) << h->refusal();
    EXPECT_NE(findings_of(*h).find("descriptor"), std::string::npos);
    EXPECT_EQ(h->allocate(100, 0, false), nullptr);
    EXPECT_TRUE(holds(p, mib, 1));
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_EQ(test::disk_bytes(dir_ / "foreign"), 0U) << "the other file was left alone";
}

TEST_F(HeapTest, ClosedDescriptorsDoNotPunchForeignFiles) {
    const auto h = create();
    void* p = h->allocate(8 * mib, 0, false);
    std::memset(p, 1, 8 * mib);
    const int number = h->seg().fd();
    test::write_file(dir_ / "foreign", std::string(16 * mib, 'x'));
    const int foreign = ::open((dir_ / "foreign").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(::dup3(foreign, number, O_CLOEXEC), number);
    ::close(foreign);
    const std::uint64_t before = test::disk_bytes(dir_ / "foreign");
    h->deallocate(p);
    h->trim();
    EXPECT_EQ(test::disk_bytes(dir_ / "foreign"), before);
}

}  // namespace
}  // namespace ndarena::heap
