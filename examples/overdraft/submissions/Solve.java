import java.io.IOException;
import java.io.InputStream;

public class Main {
    private static final InputStream in = System.in;
    private static final byte[] buffer = new byte[1 << 16];
    private static int at = 0;
    private static int filled = 0;

    private static int nextByte() throws IOException {
        if (at == filled) {
            filled = in.read(buffer);
            at = 0;
            if (filled <= 0) {
                return -1;
            }
        }
        return buffer[at++];
    }

    private static long nextNumber() throws IOException {
        int c = nextByte();
        while (c <= ' ') {
            c = nextByte();
        }
        boolean negative = c == '-';
        if (negative) {
            c = nextByte();
        }
        long value = 0;
        for (; c > ' '; c = nextByte()) {
            value = value * 10 + (c - '0');
        }
        return negative ? -value : value;
    }

    public static void main(String[] args) throws IOException {
        long days = nextNumber();
        long balance = 0;
        for (long day = 1; day <= days; day++) {
            balance += nextNumber();
            if (balance < 0) {
                System.out.println("overdrawn " + day);
                return;
            }
        }
        System.out.println("solvent " + balance);
    }
}
