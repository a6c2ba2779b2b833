#include "segment/segment.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace ndarena::segment {
namespace {

file_header good_header(const geometry& geo = {}) {
    file_header header;
    make_header(header, geo, 64, {1, 2, 3, 4}, 1700000000, 0);
    return header;
}

unsigned char* bytes_of(file_header& header) { return reinterpret_cast<unsigned char*>(&header); }

void sign(file_header& header) { header.crc = base::crc32c(&header, offsetof(file_header, crc)); }

TEST(Geometry, TablesFollowEachOtherOnPages) {
    for (const std::uint64_t capacity : {1U << 20, 16U << 20, 1U << 30}) {
        const geometry geo = geometry::for_capacity(capacity);
        const std::uint64_t at[] = {0,
                                    format_page,
                                    2 * format_page,
                                    geo.control_offset(),
                                    geo.heads_offset(),
                                    geo.undo_offset(),
                                    geo.radix_offset(),
                                    geo.slots_offset(),
                                    geo.transit_offset(),
                                    geo.data_offset()};
        for (std::size_t i = 1; i < std::size(at); ++i) {
            EXPECT_EQ(at[i] % format_page, 0U);
            EXPECT_GT(at[i], at[i - 1]);
        }
        EXPECT_GE(geo.undo_offset() - geo.heads_offset(),
                  sizeof(std::uint32_t) * first_level_count * second_level_count);
        EXPECT_GE(geo.radix_offset() - geo.undo_offset(), sizeof(undo_page));
        EXPECT_EQ(geo.slots_offset() - geo.radix_offset(), 2 * radix_fanout * 8);
        EXPECT_GE(geo.transit_offset() - geo.slots_offset(), geo.slot_count * sizeof(slot_entry));
        EXPECT_GE(geo.data_offset() - geo.transit_offset(),
                  geo.transit_count * sizeof(transit_token));
        EXPECT_EQ(geo.chunk_bytes() % format_page, 0U);
        EXPECT_GE(geo.chunk_bytes(),
                  geo.records_per_chunk() * (sizeof(block_record) + geo.slot_count / 8));
        EXPECT_LE(geo.min_capacity(), std::max<std::uint64_t>(capacity, 1U << 20));
    }
}

TEST(Header, AcceptsItsOwn) {
    for (const std::uint64_t capacity : {1U << 20, 1U << 30}) {
        const geometry made = geometry::for_capacity(capacity);
        geometry read;
        ASSERT_TRUE(check_header(good_header(made), true, read, {}));
        EXPECT_EQ(read.chunk_shift, made.chunk_shift);
        EXPECT_EQ(read.slot_count, made.slot_count);
        EXPECT_EQ(read.transit_count, made.transit_count);
        EXPECT_EQ(read.data_offset(), made.data_offset());
    }
}

TEST(Header, EveryDamagedByteIsAnError) {
    file_header header = good_header();
    for (std::size_t i = 0; i < sizeof header; ++i) {
        for (const unsigned flip : {0xFFU, 0x01U, 0x80U}) {
            bytes_of(header)[i] = static_cast<unsigned char>(bytes_of(header)[i] ^ flip);
            geometry geo;
            const auto judged = check_header(header, true, geo, "file");
            ASSERT_FALSE(judged) << "byte " << i;
            EXPECT_TRUE(judged.err().code == errc::format || judged.err().code == errc::corruption);
            EXPECT_EQ(judged.err().path, "file");
            EXPECT_FALSE(judged.err().message.empty());
            bytes_of(header)[i] = static_cast<unsigned char>(bytes_of(header)[i] ^ flip);
        }
    }
}

// With a checksum that fits: only what may differ between arenas is accepted,
// and never a geometry that leads out of bounds.
TEST(Header, ForgedNumbersAreAnError) {
    const file_header good = good_header();
    geometry expected;
    ASSERT_TRUE(check_header(good, true, expected, {}));
    for (std::size_t i = 0; i < offsetof(file_header, crc); ++i) {
        for (unsigned bit = 0; bit < 8; ++bit) {
            file_header header = good;
            bytes_of(header)[i] = static_cast<unsigned char>(bytes_of(header)[i] ^ (1U << bit));
            sign(header);
            geometry geo;
            if (!check_header(header, true, geo, {})) {
                continue;
            }
            const auto within = [i](std::size_t first, std::size_t last) {
                return i >= first && i < last;
            };
            // Chunks of another size fit the same positions.
            EXPECT_TRUE(
                within(offsetof(file_header, uuid), offsetof(file_header, alignment)) ||
                within(offsetof(file_header, chunk_shift), offsetof(file_header, slot_count)) ||
                within(offsetof(file_header, features_compatible),
                       offsetof(file_header, features_read_only)))
                << "byte " << i << " bit " << bit;
            EXPECT_LE(geo.chunk_shift, 16U);
            EXPECT_EQ(geo.data_offset(), expected.data_offset());
        }
    }
}

TEST(Header, SaysWhatIsWrong) {
    const auto verdict = [](file_header header, bool writable) {
        geometry geo;
        const auto judged = check_header(header, writable, geo, {});
        return judged ? error{} : judged.err();
    };
    file_header header = good_header();
    header.magic[0] = 'X';
    EXPECT_EQ(verdict(header, true).code, errc::format);
    header = good_header();
    header.byte_order = 0x04030201;
    EXPECT_NE(verdict(header, true).message.find("byte order"), std::string::npos);
    header = good_header();
    header.version = format_version + 1;
    EXPECT_EQ(verdict(header, true).code, errc::format);
    EXPECT_NE(verdict(header, true).message.find("version 2"), std::string::npos);
    header = good_header();
    header.features_incompatible = 1;
    sign(header);
    EXPECT_EQ(verdict(header, false).code, errc::format);
    header = good_header();
    header.features_read_only = 1;
    sign(header);
    EXPECT_EQ(verdict(header, true).code, errc::format);
    EXPECT_EQ(verdict(header, false).code, errc::ok) << "reading is allowed";
    header = good_header();
    header.alignment = 96;
    sign(header);
    EXPECT_EQ(verdict(header, true).code, errc::corruption);
    header = good_header();
    header.data_offset += format_page;
    sign(header);
    EXPECT_EQ(verdict(header, true).code, errc::corruption);
}

}  // namespace
}  // namespace ndarena::segment
