import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.Scanner;

public class Main {
    private static final OutputStream out = new BufferedOutputStream(System.out, 1 << 16);

    private static void ring(byte[] row, int placed, int left) throws IOException {
        int bells = row.length - 1;
        if (placed == bells) {
            out.write(row);
            return;
        }
        for (int bell = 1; bell <= bells; bell++) {
            if ((left & 1 << bell) != 0) {
                row[placed] = (byte) ('0' + bell);
                ring(row, placed + 1, left & ~(1 << bell));
            }
        }
    }

    public static void main(String[] args) throws IOException {
        byte[] row = new byte[new Scanner(System.in).nextInt() + 1];
        row[row.length - 1] = '\n';
        ring(row, 0, ~0);
        out.flush();
    }
}
