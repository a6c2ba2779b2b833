// The header page and the length of the file, mutated one by one: an error of
// the right kind that leaves the file as it was, never a crash.
#include "heap/fixture.hpp"

#include "support/instance.hpp"

#include <algorithm>
#include <cstddef>
#include <fstream>

namespace ndarena::heap {
namespace {

using segment::file_header;
using segment::format_page;

class PageZero : public HeapTest {
protected:
    void SetUp() override {
        const auto h = create(mib);
        for (std::uint64_t i = 0; i < 30; ++i) {
            fill(h->allocate(1 + i * 500, 0, false), 1 + i * 500, i);
        }
        test::copy_file(path_, dir_ / "image");  // as a process that has died left it
        geo_ = h->seg().geo();
        watermark_ = h->stats().committed;
    }
    // Puts bytes in place under the inode that the arena's state knows.
    void restore(const std::string& bytes) {
        const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
        ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(bytes.size())), 0);
        ::close(fd);
    }
    static std::string read(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static errc refusal(const segment_options& options) {
        const auto opened = heap::open(options);
        if (opened) {
            return errc::ok;
        }
        EXPECT_FALSE(opened.err().message.empty());
        return opened.err().code;
    }
    // What is not an arena of this version, and what is one but damaged.
    static errc kind_of(std::size_t at) {
        return at < offsetof(file_header, features_compatible) ? errc::format : errc::corruption;
    }
    static std::vector<unsigned char> values(unsigned char right) {
        std::vector<unsigned char> wrong;
        for (const unsigned value : {0x00U, 0xFFU, right ^ 0x01U, right ^ 0x80U, right + 1U}) {
            const auto byte = static_cast<unsigned char>(value);
            if (byte != right && std::find(wrong.begin(), wrong.end(), byte) == wrong.end()) {
                wrong.push_back(byte);
            }
        }
        return wrong;
    }
    // All bytes; under a sanitizer not all of the reserved ones.
    static std::size_t step_after(std::size_t at) {
        return test::under_sanitizer && at >= offsetof(file_header, reserved) ? 13 : 1;
    }
    // Opens, looks and works; in a child, for whom the file may be a trap.
    void use() const {
        ::alarm(60);
        for (const open_mode mode : {open_mode::read, open_mode::read_write, open_mode::append}) {
            const auto opened = heap::open(file(path_, mode));
            if (!opened) {
                EXPECT_FALSE(opened.err().message.empty());
                continue;
            }
            heap& h = **opened;
            (void)h.check();
            (void)h.blocks();
            std::vector<void*> blocks;
            for (std::uint64_t i = 0; i < 60; ++i) {
                blocks.push_back(h.allocate(1 + i * 700, 0, i % 2 == 0));
                if (blocks.back() != nullptr) {
                    std::memset(blocks.back(), 1, 1 + i * 700);
                }
            }
            for (void* p : blocks) {
                (void)h.reallocate(p, 5000);
            }
            (void)h.trim();
            (void)h.grow(2 * mib);
            (void)h.check();
        }
    }
    void expect_usable(const std::string& what) {
        ASSERT_EQ(test::describe_status(test::in_child([&] { use(); })), "exit status 0") << what;
    }
    std::uint64_t tables_end() const { return geo_.data_offset() + geo_.chunk_bytes(); }

    segment::geometry geo_;
    std::uint64_t watermark_ = 0;
};

TEST_F(PageZero, EveryByteOfAFile) {
    const std::string image = read(dir_ / "image");
    restore(image);
    const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    int mutations = 0;
    for (std::size_t i = 0; i < format_page; i += step_after(i)) {
        for (const unsigned char value : values(static_cast<unsigned char>(image[i]))) {
            ASSERT_EQ(::pwrite(fd, &value, 1, static_cast<off_t>(i)), 1);
            for (const open_mode mode :
                 {open_mode::read, open_mode::read_write, open_mode::append}) {
                ASSERT_EQ(refusal(file(path_, mode)), kind_of(i))
                    << "byte " << i << " is " << int{value};
                ++mutations;
            }
        }
        ASSERT_EQ(::pwrite(fd, &image[i], 1, static_cast<off_t>(i)), 1);
    }
    ::close(fd);
    EXPECT_TRUE(read(path_) == image) << "a refused file is left alone";
    EXPECT_EQ(findings_of(*attach()), "");
    RecordProperty("mutations", mutations);
}

TEST_F(PageZero, EveryByteOfABuffer) {
    const test::anonymous_memory memory(mib);
    { const auto h = open(buffer(memory.data(), memory.size())); }
    std::vector<std::byte> before(memory.data(), memory.data() + memory.size());
    int mutations = 0;
    for (std::size_t i = 0; i < format_page; i += step_after(i)) {
        for (const unsigned char value : values(static_cast<unsigned char>(before[i]))) {
            memory.data()[i] = std::byte{value};
            ASSERT_EQ(refusal(buffer(memory.data(), memory.size())), kind_of(i))
                << "byte " << i << " is " << int{value};
            ++mutations;
        }
        memory.data()[i] = before[i];
    }
    EXPECT_EQ(std::memcmp(memory.data(), before.data(), before.size()), 0);
    EXPECT_EQ(findings_of(*open(buffer(memory.data(), memory.size()))), "");
    RecordProperty("mutations", mutations);
}

// The same with a checksum that fits: an error, or an arena that can be used.
TEST_F(PageZero, EveryBitForged) {
    const std::string image = read(dir_ / "image");
    constexpr std::size_t meaningful = offsetof(file_header, reserved);
    int mutations = 0;
    for (std::size_t bit = 0; bit < 8 * meaningful; ++bit) {
        std::string forged = image;
        forged[bit / 8] = static_cast<char>(forged[bit / 8] ^ (1 << (bit % 8)));
        const std::uint32_t crc = base::crc32c(forged.data(), offsetof(file_header, crc));
        std::memcpy(&forged[offsetof(file_header, crc)], &crc, sizeof crc);
        restore(forged);
        const errc code = refusal(file(path_, open_mode::read));
        EXPECT_TRUE(code == errc::ok || code == errc::format || code == errc::corruption);
        if (code == errc::ok) {
            expect_usable("bit " + std::to_string(bit));
        }
        ++mutations;
    }
    RecordProperty("mutations", mutations);
}

// Truncated at every border of a page and between: what ends before its tables
// is damaged whatever is in it, what ends before its committed part is so for
// all that trust its state. The rest can be used.
TEST_F(PageZero, EveryLength) {
    const std::string image = read(dir_ / "image");
    ASSERT_GT(image.size(), watermark_ - 1);
    int mutations = 0;
    std::vector<std::uint64_t> lengths;
    const std::uint64_t step = format_page * (test::under_sanitizer ? 16 : 1);
    for (std::uint64_t border = 0; border <= image.size(); border += step) {
        for (const std::uint64_t off : {0U, 1U, 63U, 2048U, 4095U}) {
            lengths.push_back(border + off);
        }
    }
    for (const std::uint64_t length : lengths) {
        if (length > image.size()) {
            continue;
        }
        for (const bool with_peer : {false, true}) {
            restore(image.substr(0, length));
            // Another process lives in it: its state is to be trusted.
            auto peer = platform::open_file(path_, true, true);
            ASSERT_TRUE(peer);
            if (with_peer) {
                ASSERT_EQ(platform::try_lock_byte(peer->get(), segment::lock_base + 9),
                          platform::lock_answer::taken);
            }
            const bool trusted = with_peer || test::state_is_lasting(path_);
            const errc expected = length < format_page             ? errc::format
                                  : length < tables_end()          ? errc::corruption
                                  : trusted && length < watermark_ ? errc::corruption
                                                                   : errc::ok;
            for (const open_mode mode :
                 {open_mode::read, open_mode::read_write, open_mode::append}) {
                ASSERT_EQ(refusal(file(path_, mode)), expected)
                    << length << " bytes" << (with_peer ? " with a peer" : "");
                ++mutations;
            }
            if (expected != errc::ok) {
                struct stat st {};
                ASSERT_EQ(::stat(path_.c_str(), &st), 0);
                ASSERT_EQ(static_cast<std::uint64_t>(st.st_size), length) << "left alone";
            }
        }
        if (length % format_page <= 1) {
            restore(image.substr(0, length));
            expect_usable(std::to_string(length) + " bytes");
        }
    }
    RecordProperty("mutations", mutations);
}

}  // namespace
}  // namespace ndarena::heap
