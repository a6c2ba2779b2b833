// Damaged files: a clear error or a finding, never a crash or a hang.
#include "heap/fixture.hpp"

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
