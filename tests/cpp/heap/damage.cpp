// Damaged files: a clear error or a finding, never a crash or a hang.
#include "heap/fixture.hpp"

#include "support/instance.hpp"

namespace ndarena::heap {
namespace {

class Damage : public HeapTest {
protected:
    void SetUp() override {
        const auto h = create(8 * mib);
        std::vector<void*> blocks;
        for (std::uint64_t i = 0; i < 60; ++i) {
            blocks.push_back(h->allocate(1 + i * i * 40, 0, false));
        }
        for (std::size_t i = 0; i < blocks.size(); i += 3) {
            h->deallocate(blocks[i]);
        }
        // The state of a process that died: the blocks are still there.
        test::copy_file(path_, dir_ / "image");
        data_ = h->seg().geo().data_offset();
        tables_ = data_ + h->seg().geo().chunk_bytes();
    }
    // Puts the image in place again under the inode it knows.
    void restore(const std::string& bytes) {
        const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        (void)!::ftruncate(fd, 0);
        (void)!::pwrite(fd, bytes.data(), bytes.size(), 0);
        ::close(fd);
    }
    // Everything that a program may do with it. Runs in a child.
    void use() const {
        ::alarm(60);
        {
            auto reader = heap::open(file(path_, open_mode::read));
            if (reader) {
                (void)(*reader)->check();
                (void)(*reader)->stats();
                (void)(*reader)->blocks();
            }
        }
        auto opened = heap::open(file(path_, open_mode::read_write));
        if (!opened) {
            EXPECT_FALSE(opened.err().message.empty());
            return;
        }
        heap& h = **opened;
        (void)h.check();
        (void)h.stats();
        (void)h.blocks();
        std::vector<void*> blocks;
        for (std::uint64_t i = 0; i < 60; ++i) {
            blocks.push_back(h.allocate(1 + i * 1000, 0, i % 2 == 0));
            if (blocks.back() != nullptr) {
                std::memset(blocks.back(), 1, 1 + i * 1000);
            }
        }
        for (void* p : blocks) {
            (void)h.reallocate(p, 5000);
        }
        (void)h.trim();
        (void)h.reclaim();
        (void)h.grow(16 * mib);
        (void)h.check();
        (void)h.refusal();
    }
    std::uint64_t data_ = 0;
    std::uint64_t tables_ = 0;
};

TEST_F(Damage, FlippedBitsInTheTables) {
    std::string image;
    {
        std::ifstream in(dir_ / "image", std::ios::binary);
        image.assign(std::istreambuf_iterator<char>(in), {});
    }
    std::mt19937_64 random(31);
    const std::uint64_t control = 3 * segment::format_page;
    const int rounds = test::under_sanitizer ? 40 : 300;
    for (int round = 0; round < rounds; ++round) {
        std::string damaged = image;
        std::string where;
        for (int i = 0; i < 3; ++i) {
            // Three in four where it matters most: control page, records.
            const std::uint64_t at = random() % 4 == 0 ? control + random() % (tables_ - control)
                                     : random() % 2 == 0
                                         ? control + random() % 512
                                         : data_ + random() % (100 * sizeof(tlsf::block_record));
            damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
            where += std::to_string(at) + " ";
        }
        restore(damaged);
        ASSERT_EQ(test::describe_status(test::in_child([&] { use(); })), "exit status 0")
            << "damage at " << where;
    }
}

TEST_F(Damage, RandomWordsInTheTables) {
    std::string image;
    {
        std::ifstream in(dir_ / "image", std::ios::binary);
        image.assign(std::istreambuf_iterator<char>(in), {});
    }
    std::mt19937_64 random(32);
    const std::uint64_t control = 3 * segment::format_page;
    const int rounds = test::under_sanitizer ? 40 : 300;
    for (int round = 0; round < rounds; ++round) {
        std::string damaged = image;
        const std::uint64_t at =
            (round % 2 == 0 ? control + random() % 512 : control + random() % (tables_ - control)) &
            ~std::uint64_t{3};
        const std::uint32_t words[] = {
            0, 0xFFFFFFFF, 0x7FFFFFFF, static_cast<std::uint32_t>(random()), 0xFFFFFFFE, 1};
        const std::uint32_t word = words[random() % std::size(words)];
        std::memcpy(&damaged[at], &word, sizeof word);
        restore(damaged);
        ASSERT_EQ(test::describe_status(test::in_child([&] { use(); })), "exit status 0")
            << "damage at " << at << ": " << word;
    }
}

// A row bit that waits for a record to come into use is found before it does.
TEST_F(Damage, RowsHoldNoRecordThatWasNeverInUse) {
    const auto h = scratch(8 * mib);
    ASSERT_EQ(findings_of(*h), "");
    const segment::geometry& geo = h->seg().geo();
    auto* rows = reinterpret_cast<std::uint64_t*>(
        h->base() + geo.data_offset() + geo.records_per_chunk() * sizeof(tlsf::block_record));
    rows[5 * geo.row_bytes() / 8 + 1] = 2;  // slot 5, record 65
    EXPECT_NE(findings_of(*h).find("slot 5 holds record 65"), std::string::npos);
    rows[5 * geo.row_bytes() / 8 + 1] = 0;
    EXPECT_EQ(findings_of(*h), "");
}

// Tables that say that no record is left: refused, and not after waiting for
// other processes where there are none.
TEST_F(Damage, NoRecordsLeft) {
    const auto h = scratch(8 * mib);
    ASSERT_TRUE(h->deallocate(h->allocate(mib, 0, false)));
    segment::control_page& c = h->seg().control();
    c.record_bump = h->seg().geo().records_per_chunk() * c.chunk_count;
    const std::uint64_t before = platform::monotonic_milliseconds();
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(h->allocate(100, 0, false), nullptr);
        EXPECT_NE(h->refusal().find("no room"), std::string::npos) << h->refusal();
    }
    EXPECT_LT(platform::monotonic_milliseconds() - before, 2000U);
    EXPECT_NE(findings_of(*h), "");
}

// An undo log with more entries than any process can have written is not played
// back, by nobody, and everybody says so.
TEST_F(Damage, AnImpossibleUndoLog) {
    (void)::unlink(path_.c_str());
    const auto h = create(8 * mib);
    const auto reader = open(file(path_, open_mode::read));
    void* p = h->allocate(1000, 0, false);
    fill(p, 1000, 1);
    auto& undo = *reinterpret_cast<segment::undo_page*>(h->base() + h->seg().geo().undo_offset());
    undo.offsets.fill(h->seg().geo().data_offset());
    undo.count = segment::undo_entry_count + 1;
    const std::string records(reinterpret_cast<const char*>(h->base()) + data_, tables_ - data_);
    EXPECT_NE(findings_of(*reader).find("undo log"), std::string::npos) << findings_of(*reader);
    EXPECT_EQ(test::describe_status(test::in_raw_child([&] {
                  const auto opened = segment::segment::open(file(path_, open_mode::read_write));
                  EXPECT_TRUE(!opened && opened.err().code == errc::corruption);
              })),
              "exit status 0");
    EXPECT_EQ(h->allocate(1000, 0, false), nullptr);
    EXPECT_NE(h->refusal().find("undo log"), std::string::npos) << h->refusal();
    EXPECT_NE(findings_of(*h).find("undo log"), std::string::npos) << findings_of(*h);
    const auto sent = h->send(p, 1);
    EXPECT_TRUE(!sent && sent.err().code != errc::lock_timeout);
    EXPECT_EQ(undo.count, segment::undo_entry_count + 1) << "the evidence is left";
    EXPECT_EQ(records,
              std::string(reinterpret_cast<const char*>(h->base()) + data_, tables_ - data_));
    EXPECT_TRUE(holds(p, 1000, 1));
}

// Numbers of tokens that lead out of their table, and out of the file.
TEST_F(Damage, TokensBeyondTheirTable) {
    (void)::unlink(path_.c_str());
    const auto h = create(8 * mib);
    void* p = h->allocate(1000, 0, false);
    block_id id;
    std::uint64_t nbytes = 0;
    ASSERT_TRUE(h->identify(p, id, nbytes));
    segment::control_page& c = h->seg().control();
    c.transit_bump = segment::nil;
    EXPECT_TRUE(h->attach(id, {segment::nil - 1, 7}, nbytes)) << "its process holds it";
    EXPECT_NE(findings_of(*h), "");
    c.transit_free = segment::nil - 1;
    EXPECT_FALSE(h->send(p, 1));
}

// An arena in a file whose size is its owner's never reaches beyond its end.
TEST_F(Damage, AFileOfFixedSizeThatWasCut) {
    for (const bool known : {true, false}) {  // the state is trusted, or made anew
        const std::string name = dir_ / (known ? "known" : "moved");
        test::write_file(name, std::string(mib, '\0'));
        {
            auto fd = platform::open_file(name, true, false);
            ASSERT_TRUE(fd);
            auto mapped = platform::mapped_region::map_file(fd->get(), mib, mib, mib, true, {});
            ASSERT_TRUE(mapped);
            EXPECT_NE(open(buffer(mapped->data(), mib)), nullptr);
        }
        const std::string path = known ? name : name + "-copy";
        if (!known) {
            test::copy_file(name, path);
        }
        ASSERT_EQ(::truncate(path.c_str(), mib / 2), 0);
        const auto opened = heap::open(file(path, open_mode::read_write));
        if (known && test::state_is_lasting(path)) {
            ASSERT_FALSE(opened);
            EXPECT_EQ(opened.err().code, errc::corruption);
            continue;
        }
        ASSERT_TRUE(opened) << opened.err().message;
        EXPECT_EQ((*opened)->capacity(), mib / 2);
        EXPECT_EQ((*opened)->allocate(mib * 3 / 4, 0, false), nullptr);
        void* p = (*opened)->allocate(mib / 4, 0, true);
        ASSERT_NE(p, nullptr);
        std::memset(p, 1, mib / 4);
    }
}

// Another writer scribbles over the tables while we use them.
TEST_F(Damage, ScribblingWhileInUse) {
    std::mt19937_64 random(33);
    const int rounds = test::under_sanitizer ? 20 : 200;
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t seed = random();
        ASSERT_EQ(test::describe_status(test::in_child([&] {
                      ::alarm(60);
                      std::mt19937_64 own(seed);
                      const auto h = scratch(8 * mib);
                      std::vector<void*> blocks;
                      for (int i = 0; i < 300; ++i) {
                          if (i % 50 == 49) {
                              const std::uint64_t at =
                                  own() % 3 == 0 ? 3 * segment::format_page + 64 + own() % 448
                                                 : data_ + own() % (tables_ - data_);
                              h->base()[at] ^= static_cast<std::byte>(1 << (own() % 8));
                          }
                          if (own() % 2 == 0 || blocks.empty()) {
                              blocks.push_back(h->allocate(1 + own() % 50000, 0, false));
                          } else {
                              (void)h->deallocate(blocks[own() % blocks.size()]);
                          }
                      }
                      (void)h->check();
                      (void)h->stats();
                      (void)h->trim();
                  })),
                  "exit status 0")
            << "seed " << seed;
    }
}

}  // namespace
}  // namespace ndarena::heap
