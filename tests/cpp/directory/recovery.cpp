// Names after the loss of everything else: reboots, copies, damage.
#include "directory/arena_names.hpp"

#include "support/instance.hpp"

#include <fstream>
#include <sstream>

namespace ndarena::directory {
namespace {

class Recovery : public StoreTest {
protected:
    // What a reboot does to a file whose pages have all been written.
    void reboot() const {
        auto fd = platform::open_file(path_, true, false);
        ASSERT_TRUE(fd);
        const auto at =
            static_cast<off_t>(3 * segment::format_page + offsetof(segment::control_page, boot));
        std::uint64_t boot = platform::random_u64();
        ASSERT_EQ(::pwrite(fd->get(), &boot, sizeof boot, at), ssize_t{sizeof boot});
    }
    std::string bytes() const {
        std::ostringstream all;
        all << std::ifstream(path_, std::ios::binary).rdbuf();
        return all.str();
    }
    void write(const std::string& image) const {
        std::ofstream(path_, std::ios::binary | std::ios::trunc) << image;
    }
};

TEST_F(Recovery, ARebootKeepsWhatWasFlushed) {
    {
        const auto h = create_names(64 * mib);
        for (std::uint64_t i = 0; i < 400; ++i) {
            put_surely(*h, "n" + std::to_string(i), 1 + i * 300, i);
        }
        for (std::uint64_t i = 0; i < 400; i += 3) {
            ASSERT_TRUE(store::of(*h).erase("n" + std::to_string(i)));
        }
        ASSERT_TRUE(store::of(*h).set_attrs("n1", std::string(3000, 'a')));
        ASSERT_TRUE(h->flush());
    }
    reboot();
    for (int round = 0; round < 3; ++round) {
        const auto h = open_names(heap::open_mode::read_write);
        ASSERT_NE(h, nullptr);
        EXPECT_EQ(all_findings(*h), "");
        for (std::uint64_t i = 0; i < 400; ++i) {
            const std::string name = "n" + std::to_string(i);
            EXPECT_EQ(has(*h, name, 1 + i * 300, i), i % 3 != 0) << name;
        }
        // Life goes on: new arrays lie beside the old ones.
        for (std::uint64_t i = 0; i < 100; ++i) {
            put_surely(*h, "m" + std::to_string(i), 20000, i + static_cast<std::uint64_t>(round));
        }
        EXPECT_EQ(all_findings(*h), "");
        for (std::uint64_t i = 1; i < 400; i += 3) {
            EXPECT_TRUE(has(*h, "n" + std::to_string(i), 1 + i * 300, i));
        }
        ASSERT_TRUE(h->flush());
        reboot();
    }
}

TEST_F(Recovery, WhatWasNotFlushedIsGoneWhole) {
    {
        const auto h = create_names();
        put_surely(*h, "x", 5000, 1);
        ASSERT_TRUE(h->flush());
        put_surely(*h, "x", 5000, 2);
        put_surely(*h, "y", 5000, 3);
        h->forgo_last_flush(true);
    }
    if (test::state_is_lasting(path_)) {
        const auto h = open_names(heap::open_mode::read_write);
        EXPECT_TRUE(has(*h, "x", 5000, 2)) << "only processes have died";
        EXPECT_TRUE(has(*h, "y", 5000, 3));
        h->forgo_last_flush(true);
    }
    reboot();
    {
        const auto reader = open_names(heap::open_mode::read);
        EXPECT_TRUE(has(*reader, "x", 5000, 1));
        EXPECT_FALSE(is_there(*reader, "y"));
    }
    const auto h = open_names(heap::open_mode::read_write);
    EXPECT_TRUE(has(*h, "x", 5000, 1));
    EXPECT_FALSE(is_there(*h, "y"));
    EXPECT_EQ(all_findings(*h), "");
    EXPECT_EQ(h->stats().n_blocks, 2U);
}

TEST_F(Recovery, ManyTablesFindTheirPlaces) {
    constexpr std::uint64_t names = 6000;
    {
        // As full as it gets, so that tables must go where there are gaps.
        const auto h = create_names(15 * mib);
        ASSERT_TRUE(store::of(*h).begin(0));
        for (std::uint64_t i = 0; i < names; ++i) {
            put_surely(*h, "n" + std::to_string(i), 100 + i % 50, i);
        }
        ASSERT_TRUE(store::of(*h).commit());
        ASSERT_TRUE(store::of(*h).begin(0));
        for (std::uint64_t i = 0; i < names; i += 5) {
            ASSERT_TRUE(store::of(*h).erase("n" + std::to_string(i)));
        }
        ASSERT_TRUE(store::of(*h).commit());
        ASSERT_TRUE(h->flush());
    }
    reboot();
    const auto h = open_names(heap::open_mode::read_write);
    ASSERT_NE(h, nullptr);
    EXPECT_EQ(all_findings(*h), "");
    for (std::uint64_t i = 0; i < names; ++i) {
        ASSERT_EQ(has(*h, "n" + std::to_string(i), 100 + i % 50, i), i % 5 != 0) << i;
    }
}

// Every byte that the stored names are made of. What is refused is left as it
// was: only the volatile tables may tell that somebody tried.
TEST_F(Recovery, DamageIsFoundOrHarmless) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places = {
        {segment::format_page, 64},
        {segment::format_page + 4092, 4},
        {2 * segment::format_page, 64},
        {2 * segment::format_page + 4092, 4}};
    segment::geometry geo;
    {
        const auto h = create_names();
        for (std::uint64_t i = 0; i < 120; ++i) {
            put_surely(*h, "name number " + std::to_string(i), 40, i);
        }
        ASSERT_TRUE(h->flush());
        places.emplace_back(h->names().offset, node_bytes);
        geo = h->seg().geo();
    }
    reboot();
    const auto stored = [&geo](std::string image) {
        return image.erase(geo.control_offset(), geo.data_offset() - geo.control_offset());
    };
    const std::string sound = bytes();
    std::uint64_t refused = 0;
    std::uint64_t tried = 0;
    const std::uint64_t stride = test::under_sanitizer ? 97 : 23;
    for (const auto& [first, size] : places) {
        for (std::uint64_t at = first; at<first + size; at += size> 64 ? stride : 1) {
            std::string damaged = sound;
            damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
            write(damaged);
            ++tried;
            auto opened = open_heap(file(path_, heap::open_mode::read_write));
            if (!opened) {
                ++refused;
                EXPECT_EQ(opened.err().code, errc::corruption) << opened.err().message;
                EXPECT_TRUE(stored(bytes()) == stored(damaged)) << "byte " << at;
                continue;
            }
            // A root page that is not the current one: nobody needs it.
            EXPECT_EQ(all_findings(**opened), "") << "byte " << at;
            const std::uint64_t n = count(**opened);
            EXPECT_TRUE(n == 120 || n == 0) << "byte " << at;
            (*opened)->forgo_last_flush(true);
        }
    }
    EXPECT_GT(refused, tried / 5);
}

TEST_F(Recovery, ATruncatedFileIsRefused) {
    std::uint64_t half = 0;
    {
        const auto h = create_names();
        put_surely(*h, "x", 300 * kib, 1);
        entry e;
        ASSERT_TRUE(store::of(*h).find("x", e));
        half = e.offset + 150 * kib;
    }
    reboot();
    write(bytes().substr(0, half));
    auto opened = open_heap(file(path_, heap::open_mode::read_write));
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.err().code, errc::corruption) << opened.err().message;
    EXPECT_EQ(bytes().size(), half) << "it is left as it was";
}

}  // namespace
}  // namespace ndarena::directory
